//! The digest of what a setting resolves to.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::backtest::config::RunConfig;
use crate::backtest::walk::Plan;
use crate::indicators::{ColumnKey, Series};
use crate::rules::{Condition, Expr, LateGuard, Operand, Rule};
use crate::strategy::Strategy;
use crate::units::Timeframe;

/// The part of `rules_hash` that all settings of one run config share, hashed once: costs, sizing, gates in time, bars.
#[derive(Debug, Clone)]
pub(super) struct Shared(Sha256);

impl Shared {
    /// `plan` without its holding rule, which a strategy may set.
    pub(super) fn new(plan: &Plan, config: &RunConfig) -> Self {
        let mut digest = Digest::default();
        hash_plan(plan, &mut digest);
        config.sessions.hash(&mut digest);
        config.news.hash(&mut digest);
        digest.number(config.effective_spread_multiplier());
        config.primary.hash(&mut digest);
        config.parity.visibility.hash(&mut digest);
        config.parity.close_stamped.hash(&mut digest);
        config.parity.stale_bar_limit_bars.hash(&mut digest);
        let mut state = Sha256::new();
        state.update(&digest.0);
        Self(state)
    }
}

/// First 8 bytes of SHA-256 over costs, sizing, gates in time and bars (`shared`), operands by content, constants, exit
/// rules, holding rule and seed.
///
/// Labels, tags and parameters that no rule reads are not in it, nor is a GARCH `min_periods` that only masks bars
/// before the first tradable one, nor the seed when nothing random is drawn. A strategy that is not rules enters with
/// its name, version and parameters.
pub(super) fn rules_hash(
    shared: &Shared,
    strategy: &dyn Strategy,
    plan: &Plan,
    primary: Timeframe,
    parameters: &Map<String, Value>,
    rng_seed: u64,
) -> [u8; 8] {
    let mut digest = Digest::default();
    match strategy.rules() {
        Some(rules) => {
            rules.level_decimals.hash(&mut digest);
            rules.rules.len().hash(&mut digest);
            let relax = |key: ColumnKey| relaxed(key, plan.bars.start, primary);
            for rule in &rules.rules {
                hash_rule(rule, &relax, plan.bars.start, &mut digest);
            }
        }
        None => {
            strategy.name().hash(&mut digest);
            strategy.version().hash(&mut digest);
            Value::Object(parameters.clone()).to_string().hash(&mut digest);
        }
    }
    plan.holding.as_ref().map(|holding| (holding.limit_ns, &holding.only_scenarios)).hash(&mut digest);
    let slippage = &plan.terms.slippage;
    let random = slippage.random_pips != 0.0 && slippage.multiplier != 0.0;
    random.then_some(rng_seed).hash(&mut digest);
    let mut state = shared.0.clone();
    state.update(&digest.0);
    let mut first = [0; 8];
    first.copy_from_slice(&state.finalize()[..8]);
    first
}

fn hash_rule(rule: &Rule, relax: &dyn Fn(ColumnKey) -> ColumnKey, first_tradable: usize, digest: &mut Digest) {
    rule.direction.hash(digest);
    rule.scenario_id.hash(digest);
    rule.when.len().hash(digest);
    rule.when.iter().for_each(|expr| hash_expr(expr, relax, digest));
    rule.guards.len().hash(digest);
    rule.guards.iter().for_each(|guard| relaxed_guard(guard, first_tradable).hash(digest));
    rule.stop.map(|operand| mapped(operand, relax)).hash(digest);
    rule.target.map(|operand| mapped(operand, relax)).hash(digest);
    rule.lots.hash(digest);
    rule.exit.condition.is_some().hash(digest);
    rule.exit.condition.iter().for_each(|expr| hash_expr(expr, relax, digest));
    rule.exit.hold_bars.hash(digest);
}

fn hash_expr(expr: &Expr, relax: &dyn Fn(ColumnKey) -> ColumnKey, digest: &mut Digest) {
    std::mem::discriminant(expr).hash(digest);
    match expr {
        Expr::Is(condition) => {
            Condition { left: mapped(condition.left, relax), right: mapped(condition.right, relax), ..*condition }
                .hash(digest);
        }
        Expr::AtLeast { count, of } => {
            count.hash(digest);
            hash_parts(of, relax, digest);
        }
        Expr::All(parts) | Expr::Any(parts) => hash_parts(parts, relax, digest),
        Expr::Never(_) => {}
    }
}

fn hash_parts(parts: &[Expr], relax: &dyn Fn(ColumnKey) -> ColumnKey, digest: &mut Digest) {
    parts.len().hash(digest);
    parts.iter().for_each(|part| hash_expr(part, relax, digest));
}

fn mapped(operand: Operand, relax: &dyn Fn(ColumnKey) -> ColumnKey) -> Operand {
    match operand {
        Operand::Const(value) => Operand::Const(value),
        Operand::Column(key) => Operand::Column(relax(key)),
        Operand::Linear { base, factor, term } => Operand::Linear { base: relax(base), factor, term: relax(term) },
        Operand::Offset { base, offset } => Operand::Offset { base: relax(base), offset },
    }
}

/// A mask that ends before the first tradable bar of the primary series changes nothing.
fn relaxed(key: ColumnKey, first_tradable: usize, primary: Timeframe) -> ColumnKey {
    if key.timeframe != primary {
        return key;
    }
    let series = match key.series {
        Series::GarchSigma { garch, min_periods } if (min_periods as usize) < first_tradable => {
            Series::GarchSigma { garch, min_periods: 0 }
        }
        Series::KalmanGarchZ { r, q, garch, min_periods } if (min_periods as usize) < first_tradable => {
            Series::KalmanGarchZ { r, q, garch, min_periods: 0 }
        }
        other => other,
    };
    ColumnKey { series, ..key }
}

/// The local z of a bar needs `min_periods + 2` closes in its window, which has `lookback` of them, or all bars so far
/// where these are fewer: from the first tradable bar on it holds no bar back once it fits the window of that bar.
///
/// Rests on returns being finite, as [`relaxed`] does: prices are finite and above 0.
pub(super) fn relaxed_guard(guard: &LateGuard, first_tradable: usize) -> Cow<'_, LateGuard> {
    match *guard {
        LateGuard::LocalKalmanGarchZ { r, q, garch, min_periods, lookback, comparison, threshold }
            if (lookback as usize).min(first_tradable + 1) >= min_periods as usize + 2 =>
        {
            let min_periods = 0;
            Cow::Owned(LateGuard::LocalKalmanGarchZ { r, q, garch, min_periods, lookback, comparison, threshold })
        }
        _ => Cow::Borrowed(guard),
    }
}

fn hash_plan(plan: &Plan, digest: &mut Digest) {
    let terms = &plan.terms;
    terms.variant.hash(digest);
    let numbers = [
        terms.pip,
        terms.buffer,
        terms.min_stop_pips,
        terms.slippage.fixed_pips,
        terms.slippage.random_pips,
        terms.slippage.multiplier,
        terms.volume.min,
        terms.volume.step,
        terms.volume.max,
        terms.risk,
        terms.pip_value,
        terms.unit_value,
        plan.initial_balance,
    ];
    numbers.into_iter().for_each(|x| digest.number(x));
    // Every field of the fees prints in full: Rust's `{:?}` of an f64 is its shortest exact text.
    format!("{:?}", terms.fees).hash(digest);
    (plan.max_positions, plan.cooldown_bars, plan.cooldown_ns, plan.cooldown_after_exit_ns).hash(digest);
    (plan.bars.start, plan.bars.end, plan.close_at_end).hash(digest);
}

/// Bytes to be hashed, behind the standard hashing traits. Integers enter as little-endian 64-bit words whatever the
/// platform's word size and byte order, so the digest is the same everywhere.
struct Digest(Vec<u8>);

impl Default for Digest {
    fn default() -> Self {
        Self(Vec::with_capacity(1024))
    }
}

impl Digest {
    fn number(&mut self, x: f64) {
        self.write_u64(x.to_bits());
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn write_u8(&mut self, x: u8) {
        self.write_u64(x.into());
    }

    fn write_u16(&mut self, x: u16) {
        self.write_u64(x.into());
    }

    fn write_u32(&mut self, x: u32) {
        self.write_u64(x.into());
    }

    fn write_u64(&mut self, x: u64) {
        self.0.extend_from_slice(&x.to_le_bytes());
    }

    fn write_usize(&mut self, x: usize) {
        self.write_u64(x as u64);
    }

    fn write_i64(&mut self, x: i64) {
        self.write_u64(x as u64);
    }

    fn write_isize(&mut self, x: isize) {
        self.write_u64(x as u64);
    }
}
