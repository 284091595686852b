//! What a strategy states, once: conditions over columns, late guards, stop, target, optional exit condition and
//! time limit. Both ways of running a backtest read the same statement.

mod bound;
mod compare;
mod guards;
mod mask;
mod query;

pub use bound::{BoundRules, Hit, narrowest};
pub(crate) use compare::{Term, Values, read_ahead};
pub use guards::{ClusterReport, ClusterStatus, GuardCache, GuardEvaluator};
pub use mask::BitMask;
pub use query::MaskCache;
pub(crate) use query::{ConditionSet, Node};

use crate::indicators::{ColumnKey, GarchKey};
use crate::units::{Bits, Direction};

/// A number at a bar: a constant, a column, or `column + factor × column`. Undefined (NaN) if any part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operand {
    /// The same number at every bar.
    Const(Bits),
    /// The column's value.
    Column(ColumnKey),
    /// `base + factor × term`: a band, a distance.
    Linear {
        /// Column taken as it is.
        base: ColumnKey,
        /// Multiplier of `term`.
        factor: Bits,
        /// Column that is multiplied.
        term: ColumnKey,
    },
    /// `base + offset`.
    Offset {
        /// Column taken as it is.
        base: ColumnKey,
        /// Constant that is added.
        offset: Bits,
    },
}

impl Operand {
    /// A constant.
    pub fn constant(value: f64) -> Self {
        Self::Const(Bits::new(value))
    }

    /// `base + factor × term`.
    pub fn linear(base: ColumnKey, factor: f64, term: ColumnKey) -> Self {
        Self::Linear { base, factor: Bits::new(factor), term }
    }

    /// `base + offset`.
    pub fn offset(base: ColumnKey, offset: f64) -> Self {
        Self::Offset { base, offset: Bits::new(offset) }
    }

    /// Every column the operand reads.
    pub fn columns(&self) -> impl Iterator<Item = ColumnKey> + use<> {
        let (a, b) = match *self {
            Self::Const(_) => (None, None),
            Self::Column(key) | Self::Offset { base: key, .. } => (Some(key), None),
            Self::Linear { base, term, .. } => (Some(base), Some(term)),
        };
        a.into_iter().chain(b)
    }
}

/// Relation of a condition. False when either side is undefined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Comparison {
    /// `left < right`.
    Less,
    /// `left <= right`.
    LessOrEqual,
    /// `left > right`.
    Greater,
    /// `left >= right`.
    GreaterOrEqual,
}

impl Comparison {
    /// Holds exactly where this one does not, if both sides are defined.
    pub(crate) fn opposite(self) -> Self {
        match self {
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Greater => Self::LessOrEqual,
            Self::GreaterOrEqual => Self::Less,
        }
    }
}

/// Two operands compared at a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Condition {
    /// Left side.
    pub left: Operand,
    /// Relation.
    pub comparison: Comparison,
    /// Right side.
    pub right: Operand,
    /// The left side must also be finite, not only defined: `±inf` never counts (z-scores).
    pub finite: bool,
}

impl Condition {
    /// `left comparison right`; infinite values take part.
    pub fn new(left: Operand, comparison: Comparison, right: Operand) -> Self {
        Self { left, comparison, right, finite: false }
    }

    /// The same for a z-score, which must be finite.
    pub fn finite(left: Operand, comparison: Comparison, right: Operand) -> Self {
        Self { left, comparison, right, finite: true }
    }
}

/// A truth value per bar, built from conditions.
#[allow(
    clippy::large_enum_variant,
    reason = "a rule states a few, nearly all of them `Is`; a box would only be followed"
)]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expr {
    /// One comparison.
    Is(Condition),
    /// All hold; true when empty.
    All(Vec<Expr>),
    /// At least one holds; false when empty.
    Any(Vec<Expr>),
    /// At least `count` of them hold.
    AtLeast {
        /// How many must hold.
        count: usize,
        /// Among these.
        of: Vec<Expr>,
    },
    /// Holds at no bar. The text says why, for the report of a setting that never trades.
    Never(&'static str),
}

impl Expr {
    /// Every column the expression reads, with repetitions.
    pub fn columns(&self) -> Vec<ColumnKey> {
        match self {
            Self::Is(condition) => condition.left.columns().chain(condition.right.columns()).collect(),
            Self::All(parts) | Self::Any(parts) | Self::AtLeast { of: parts, .. } => {
                parts.iter().flat_map(Self::columns).collect()
            }
            Self::Never(_) => Vec::new(),
        }
    }

    /// Calls `see` with every comparison in the expression, in order.
    pub fn for_each_condition(&self, see: &mut impl FnMut(&Condition)) {
        match self {
            Self::Is(condition) => see(condition),
            Self::All(parts) | Self::Any(parts) | Self::AtLeast { of: parts, .. } => {
                parts.iter().for_each(|part| part.for_each_condition(see));
            }
            Self::Never(_) => {}
        }
    }
}

impl std::fmt::Display for Operand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Const(value) => write!(f, "{}", value.get()),
            Self::Column(key) => write!(f, "{key}"),
            Self::Linear { base, factor, term } => write!(f, "{base} + {}·{term}", factor.get()),
            Self::Offset { base, offset } => write!(f, "{base} + {}", offset.get()),
        }
    }
}

impl std::fmt::Display for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |f: &mut std::fmt::Formatter<'_>, parts: &[Self], between: &str| {
            for (k, part) in parts.iter().enumerate() {
                let between = if k == 0 { "" } else { between };
                write!(f, "{between}({part})")?;
            }
            Ok(())
        };
        match self {
            Self::Is(Condition { left, comparison, right, .. }) => {
                let sign = match comparison {
                    Comparison::Less => "<",
                    Comparison::LessOrEqual => "<=",
                    Comparison::Greater => ">",
                    Comparison::GreaterOrEqual => ">=",
                };
                write!(f, "{left} {sign} {right}")
            }
            Self::All(parts) => list(f, parts, " and "),
            Self::Any(parts) => list(f, parts, " or "),
            Self::AtLeast { count, of } => {
                write!(f, "at least {count} of ")?;
                list(f, of, ", ")
            }
            Self::Never(why) => f.write_str(why),
        }
    }
}

/// Series that the volatility clusters are formed of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterFeature {
    /// ATR of the primary bid bars, from the first bar on.
    Atr {
        /// Period.
        length: u32,
    },
    /// GARCH deviation over the last `lookback` closes.
    LocalGarch {
        /// The recursion.
        garch: GarchKey,
        /// Returns before the first value.
        min_periods: u32,
        /// Closes in the window.
        lookback: u32,
    },
}

/// A test too dear for every bar: looked at only where all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LateGuard {
    /// Kalman+GARCH z over the last `lookback` primary bid closes against a threshold (`<=` for long, `>=` for short).
    LocalKalmanGarchZ {
        /// Measurement variance of the Kalman mean.
        r: Bits,
        /// Process variance.
        q: Bits,
        /// The recursion.
        garch: GarchKey,
        /// Returns before the first value.
        min_periods: u32,
        /// Closes in the window.
        lookback: u32,
        /// `<=` or `>=`.
        comparison: Comparison,
        /// Threshold.
        threshold: Bits,
    },
    /// The bar's volatility cluster is among the allowed ones.
    VolCluster {
        /// What is clustered.
        feature: ClusterFeature,
        /// Values clustered.
        window: u32,
        /// Clusters.
        k: u32,
        /// Values needed.
        min_points: u32,
        /// Cluster logarithms.
        log_transform: bool,
        /// Last labels that must agree; 0 and 1 mean the same.
        hysteresis_bars: u32,
        /// Allowed labels, lower case, sorted.
        allowed: Vec<String>,
    },
}

/// When an open position is closed by its own rule, looked at from the bar after entry, after stop and target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ExitRule {
    /// Closes at the bar's close, reason `signal`.
    pub condition: Option<Expr>,
    /// Closes on bar `entry + hold_bars`, reason `timeout`.
    pub hold_bars: Option<u32>,
}

/// One way into a position: a market order at the close of the bar on which everything holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Side.
    pub direction: Direction,
    /// Number of the scenario, 0 = none.
    pub scenario_id: u8,
    /// Label of trades, `long_2`.
    pub label: String,
    /// Reason text of the signal, `kalman_z_boll_long`.
    pub reason: &'static str,
    /// Tags that do not depend on the bar.
    pub tags: Vec<String>,
    /// All must hold.
    pub when: Vec<Expr>,
    /// Looked at last, in order.
    pub guards: Vec<LateGuard>,
    /// Level of the stop; none: no stop, and the size is explicit. Undefined at the bar: no signal.
    pub stop: Option<Operand>,
    /// Level of the target; none: no target. Undefined at the bar: no signal.
    pub target: Option<Operand>,
    /// Explicit size in lots instead of sizing by risk.
    pub lots: Option<Bits>,
    /// Exit condition and limit in bars.
    pub exit: ExitRule,
}

impl Rule {
    /// Every column the rule reads, sorted, without repetitions.
    pub fn columns(&self) -> Vec<ColumnKey> {
        let levels = self.stop.iter().chain(&self.target).flat_map(Operand::columns);
        let mut keys: Vec<ColumnKey> =
            self.when.iter().chain(&self.exit.condition).flat_map(Expr::columns).chain(levels).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// Everything a rule strategy states, in the order in which rules are tried on a bar: the first that holds wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RuleSet {
    /// The rules, in order.
    pub rules: Vec<Rule>,
    /// Decimals to which stop and target are rounded (`v1_parity`: 5, half to even on the exact binary value).
    pub level_decimals: Option<u8>,
}

impl RuleSet {
    /// Every comparison of entries and exit conditions, with repetitions.
    pub fn conditions(&self) -> Vec<Condition> {
        let mut found = Vec::new();
        for expr in self.rules.iter().flat_map(|rule| rule.when.iter().chain(&rule.exit.condition)) {
            expr.for_each_condition(&mut |condition| found.push(*condition));
        }
        found
    }

    /// Every column of every rule, sorted, without repetitions.
    pub fn columns(&self) -> Vec<ColumnKey> {
        let mut keys: Vec<ColumnKey> = self.rules.iter().flat_map(Rule::columns).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}
