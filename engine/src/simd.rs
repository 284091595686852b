//! What vector code of several modules needs beside `pulp`, which picks the widest vectors the processor has at run time.
//! Results never depend on the width: only comparisons and choices run on vectors, sums do not.

use pulp::{Simd, bytemuck};

/// The answers of the lanes, the first one in the lowest bit.
///
/// `Simd::first_true_m64s` of pulp 0.22 counts from the wrong end where a mask has a bit per lane.
#[inline(always)]
pub(crate) fn lane_bits<S: Simd>(mask: S::m64s) -> u64 {
    match const { size_of::<S::m64s>() } {
        // A bit per lane, or the only lane.
        1 => u64::from(bytemuck::cast::<S::m64s, u8>(mask)),
        _ => {
            let lanes: &[u64] = bytemuck::cast_slice(std::slice::from_ref(&mask));
            lanes.iter().enumerate().fold(0, |bits, (at, lane)| bits | u64::from(*lane != 0) << at)
        }
    }
}

/// Runs an operation on every kind of vector this processor has, the plainest first.
#[cfg(test)]
pub(crate) fn on_all_widths<Op: pulp::WithSimd>(mut operation: impl FnMut() -> Op) -> Vec<Op::Output> {
    let mut results = vec![Simd::vectorize(pulp::Scalar::new(), operation())];
    #[cfg(target_arch = "x86_64")]
    {
        results.extend(pulp::x86::V3::try_new().map(|simd| Simd::vectorize(simd, operation())));
        results.extend(pulp::x86::V4::try_new().map(|simd| Simd::vectorize(simd, operation())));
    }
    #[cfg(target_arch = "aarch64")]
    results.extend(pulp::aarch64::Neon::try_new().map(|simd| Simd::vectorize(simd, operation())));
    results
}
