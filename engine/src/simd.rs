//! What vector code of several modules needs beside `pulp`, which picks the widest vectors the processor has at run time.
//! Results never depend on the width: what runs side by side are comparisons, or whole settings, one to a lane. No sum goes
//! across lanes.

use pulp::bytemuck::Pod;
use pulp::{Simd, bytemuck};

/// Defines quantities that are followed for one setting (`S` is `pulp::Scalar`, the default) or for several side by side,
/// one to a lane, by the same code: fields of 64 bits each, then parts that are of this kind themselves.
macro_rules! lanes {
    (
        $(#[$about:meta])*
        $vis:vis struct $name:ident {
            $($(#[$field_about:meta])* $field_vis:vis $field:ident: $kind:ident,)*
            $(..$(#[$part_about:meta])* $part_vis:vis $part:ident: $part_kind:ident,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy)]
        $vis struct $name<S: pulp::Simd = pulp::Scalar> {
            $($(#[$field_about])* $field_vis $field: S::$kind,)*
            $($(#[$part_about])* $part_vis $part: $part_kind<S>,)*
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                $(self.$field == other.$field &&)* $(self.$part == other.$part &&)* true
            }
        }

        #[allow(dead_code, reason = "not every kind is taken apart, or chosen from")]
        impl<S: pulp::Simd> $name<S> {
            /// Nothing in any lane.
            #[inline(always)]
            pub(crate) fn zeroed() -> Self {
                Self {
                    $($field: pulp::bytemuck::Zeroable::zeroed(),)*
                    $($part: $part_kind::zeroed(),)*
                }
            }

            /// Lane by lane what `of` has for it.
            #[inline(always)]
            pub(crate) fn gather<'g>(of: impl Fn(usize) -> &'g $name) -> Self {
                Self {
                    $($field: $crate::simd::gather_lanes(|lane| of(lane).$field),)*
                    $($part: $part_kind::gather(|lane| &of(lane).$part),)*
                }
            }

            /// What is in one lane.
            #[inline(always)]
            pub(crate) fn lane(&self, lane: usize) -> $name {
                $name {
                    $($field: pulp::bytemuck::cast_slice(std::slice::from_ref(&self.$field))[lane],)*
                    $($part: self.$part.lane(lane),)*
                }
            }

            /// Puts `of` into one lane.
            #[inline(always)]
            pub(crate) fn set_lane(&mut self, lane: usize, of: &$name) {
                $(pulp::bytemuck::cast_slice_mut(std::slice::from_mut(&mut self.$field))[lane] = of.$field;)*
                $(self.$part.set_lane(lane, &of.$part);)*
            }

            /// Lane by lane `yes` where `mask` holds, else `no`.
            #[inline(always)]
            pub(crate) fn select(simd: S, mask: S::m64s, yes: Self, no: Self) -> Self {
                Self {
                    $($field: $crate::simd::select!(simd, $kind, mask, yes.$field, no.$field),)*
                    $($part: $part_kind::select(simd, mask, yes.$part, no.$part),)*
                }
            }
        }
    };
}

macro_rules! select {
    ($simd:expr, f64s, $mask:expr, $yes:expr, $no:expr) => {
        $simd.select_f64s($mask, $yes, $no)
    };
    ($simd:expr, u64s, $mask:expr, $yes:expr, $no:expr) => {
        $simd.select_u64s($mask, $yes, $no)
    };
}

pub(crate) use {lanes, select};

/// The nearest whole number, ties to even.
#[inline(always)]
pub(crate) fn nearest<S: Simd>(simd: S, x: S::f64s) -> S::f64s {
    // From here on every number is whole, so adding it rounds to whole numbers.
    let whole = simd.splat_f64s(4_503_599_627_370_496.0);
    let size = simd.abs_f64s(x);
    let rounded = simd.sub_f64s(simd.add_f64s(size, whole), whole);
    let rounded = simd.select_f64s(simd.less_than_f64s(size, whole), rounded, size);
    simd.or_f64s(rounded, simd.and_f64s(x, simd.splat_f64s(-0.0)))
}

/// The largest whole number that is not above `x`.
#[inline(always)]
pub(crate) fn floor<S: Simd>(simd: S, x: S::f64s) -> S::f64s {
    let near = nearest(simd, x);
    simd.select_f64s(simd.less_than_f64s(x, near), simd.sub_f64s(near, simd.splat_f64s(1.0)), near)
}

/// Lanes of the widest vectors.
pub(crate) const MOST_LANES: usize = 8;

/// A vector of what `of` has for each of its lanes.
#[inline(always)]
pub(crate) fn gather_lanes<V: Pod, T: Pod>(of: impl Fn(usize) -> T) -> V {
    let mut vector = V::zeroed();
    let values: &mut [T] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut vector));
    for (lane, value) in values.iter_mut().enumerate() {
        *value = of(lane);
    }
    vector
}

/// Four vectors from rows of four values: lane `k` of the first one is the first value of row `k`, and so on.
#[inline(always)]
pub(crate) fn columns_of<S: Simd>(simd: S, row: impl Fn(usize) -> [f64; 4]) -> [S::f64s; 4] {
    // Where a register holds two rows, `pulp` brings their values into this order of lanes.
    let lanes: [usize; MOST_LANES] =
        if S::F64_LANES == 8 { [0, 2, 1, 3, 4, 6, 5, 7] } else { [0, 1, 2, 3, 4, 5, 6, 7] };
    let mut rows: [S::f64s; 4] = bytemuck::Zeroable::zeroed();
    for (values, lane) in bytemuck::cast_slice_mut::<_, [f64; 4]>(&mut rows).iter_mut().zip(lanes) {
        *values = row(lane);
    }
    simd.deinterleave_shfl_f64s(rows)
}

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

#[cfg(test)]
mod tests {
    use pulp::WithSimd;

    use super::*;

    /// [`columns_of`] rows that number their values.
    struct Numbered;

    impl WithSimd for Numbered {
        type Output = [Vec<f64>; 4];

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> [Vec<f64>; 4] {
            let columns = columns_of(simd, |lane| std::array::from_fn(|at| (10 * lane + at) as f64));
            columns.map(|column| bytemuck::cast_slice(&[column]).to_vec())
        }
    }

    #[test]
    fn rows_become_columns_in_the_order_of_lanes() {
        for columns in on_all_widths(|| Numbered) {
            for (at, column) in columns.iter().enumerate() {
                let expected: Vec<f64> = (0..column.len()).map(|lane| (10 * lane + at) as f64).collect();
                assert_eq!(*column, expected);
            }
        }
    }
}

#[cfg(test)]
mod property_tests {
    use proptest::prelude::*;
    use pulp::WithSimd;

    use super::*;

    struct Both(f64);

    impl WithSimd for Both {
        type Output = (f64, f64);

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> (f64, f64) {
            let x = simd.splat_f64s(self.0);
            let first = |x: S::f64s| bytemuck::cast_slice::<_, f64>(std::slice::from_ref(&x))[0];
            (first(nearest(simd, x)), first(floor(simd, x)))
        }
    }

    proptest! {
        #[test]
        fn prop_whole_numbers_are_those_of_the_standard_library(
            x in prop_oneof![any::<f64>(), -1e6..1e6, (-1_000_000_i32..1_000_000).prop_map(|x| f64::from(x) / 2.0)],
        ) {
            let expected = (x.round_ties_even().to_bits(), x.floor().to_bits());
            for (near, low) in on_all_widths(|| Both(x)) {
                prop_assert!(x.is_nan() || (near.to_bits(), low.to_bits()) == expected, "{x}: {near} {low}");
            }
        }
    }
}
