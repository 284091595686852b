//! The six scenarios as rules.
//!
//! A parameter that cannot matter appears in no rule: settings that differ only in such parameters state equal rules and
//! are evaluated once. For the same reason a scenario that can never fire is a bare [`Expr::Never`].

use super::super::{BuildContext, Variant};
use super::overlay::Overlay;
use super::settings::{Bands, ChainMode, Filter, FilterMode, Settings, column};
use crate::indicators::{ColumnKey, Series, cluster_rank};
use crate::rules::{ClusterFeature, Comparison, Condition, ExitRule, Expr, LateGuard, Operand, Rule};
use crate::units::{Bits, Direction, Timeframe};

/// Scenarios in the order in which they are tried on a bar: V1's, in both variants.
pub(super) const ORDER: [(u8, Direction); 12] = [
    (1, Direction::Short),
    (1, Direction::Long),
    (2, Direction::Short),
    (2, Direction::Long),
    (3, Direction::Short),
    (3, Direction::Long),
    (4, Direction::Short),
    (4, Direction::Long),
    (5, Direction::Long),
    (5, Direction::Short),
    (6, Direction::Long),
    (6, Direction::Short),
];

/// Scenario `number` is shadowed: it asks for everything scenario 2 asks for and comes after it.
pub(super) fn is_shadowed(number: u8, enabled: &[u8]) -> bool {
    matches!(number, 3 | 5 | 6) && enabled.contains(&2)
}

/// The rule of one scenario and direction.
pub(super) fn rule(number: u8, direction: Direction, settings: &Settings, context: &BuildContext) -> Rule {
    let mut rule = Rule {
        direction,
        scenario_id: number,
        label: format!("{direction}_{number}"),
        reason: reason(number, direction),
        tags: tags(number).iter().map(|tag| (*tag).to_owned()).collect(),
        when: Vec::new(),
        guards: Vec::new(),
        stop: None,
        target: None,
        lots: None,
        exit: ExitRule::default(),
    };
    match Parts::of(number, direction, settings, context) {
        Err(why) => rule.when.push(Expr::Never(why)),
        Ok(parts) => {
            rule.when = parts.when;
            rule.when.shrink_to_fit();
            rule.guards = parts.guards;
            rule.stop = Some(stop(number, direction, settings, context));
            rule.target = Some(Operand::Column(target(number, settings, context)));
        }
    }
    rule
}

/// Conditions and guards of a rule that can fire.
#[derive(Default)]
struct Parts {
    when: Vec<Expr>,
    guards: Vec<LateGuard>,
}

impl Parts {
    /// Or why the scenario can never fire.
    fn of(number: u8, direction: Direction, settings: &Settings, context: &BuildContext) -> Result<Self, &'static str> {
        let mut parts = Self::default();
        if number == 1 {
            let z = Series::ZEma { window: settings.window_length, ema: settings.ema_length };
            parts.when = vec![beyond(column(context.primary, z, context), settings.threshold(direction), direction)];
            return Ok(parts);
        }
        parts.when = filters(settings, context)?;
        parts.when.push(outside_band(context.primary, settings.bands, direction, context));
        if number == 4 {
            parts.add_garch_z(direction, settings, context)?;
            return Ok(parts);
        }
        let z = kalman_z(settings.window_length, settings.kalman_r, settings.kalman_q);
        parts.when.push(beyond(column(context.primary, z, context), settings.threshold(direction), direction));
        match number {
            3 => parts.when.push(far_from_target(direction, settings, context)?),
            5 => parts.guards.push(vol_cluster(settings)?),
            6 => parts.when.extend(chain(direction, settings, context)?),
            _ => {}
        }
        Ok(parts)
    }

    fn add_garch_z(
        &mut self,
        direction: Direction,
        settings: &Settings,
        context: &BuildContext,
    ) -> Result<(), &'static str> {
        let (r, q) = (Bits::new(settings.kalman_r), Bits::new(settings.kalman_q));
        let (garch, min_periods) = (settings.garch, settings.garch_min_periods);
        let threshold = settings.threshold(direction);
        if settings.local_z_lookback == 0 {
            let z = Series::KalmanGarchZ { r, q, garch, min_periods };
            self.when.push(beyond(column(context.primary, z, context), threshold, direction));
            return Ok(());
        }
        if u64::from(settings.local_z_lookback) < u64::from(min_periods) + 2 {
            return Err("local_z_lookback is below garch_min_periods + 2");
        }
        self.guards.push(LateGuard::LocalKalmanGarchZ {
            r,
            q,
            garch,
            min_periods,
            lookback: settings.local_z_lookback,
            comparison: at_or_beyond(direction),
            threshold: Bits::new(threshold),
        });
        Ok(())
    }
}

fn at_or_beyond(direction: Direction) -> Comparison {
    match direction {
        Direction::Long => Comparison::LessOrEqual,
        Direction::Short => Comparison::GreaterOrEqual,
    }
}

/// z at or beyond its threshold; an infinite z never counts.
fn beyond(z: ColumnKey, threshold: f64, direction: Direction) -> Expr {
    Expr::Is(Condition::finite(Operand::Column(z), at_or_beyond(direction), Operand::constant(threshold)))
}

/// Close of `timeframe` at or outside its own band.
fn outside_band(timeframe: Timeframe, bands: Bands, direction: Direction, context: &BuildContext) -> Expr {
    let close = Operand::Column(column(timeframe, Series::Close, context));
    Expr::Is(Condition::new(close, at_or_beyond(direction), band(timeframe, bands, direction, context)))
}

/// Lower band (long) or upper band (short): `mean ∓ std_factor × sd`.
fn band(timeframe: Timeframe, bands: Bands, direction: Direction, context: &BuildContext) -> Operand {
    let mean = column(timeframe, Series::RollingMean(bands.length), context);
    let sd = column(timeframe, Series::RollingSd(bands.length), context);
    Operand::linear(mean, -direction.sign() * bands.std_factor, sd)
}

/// Kalman z of the close.
pub(super) fn kalman_z(window: u32, r: f64, q: f64) -> Series {
    Series::KalmanZ { window, r: Bits::new(r), q: Bits::new(q) }
}

/// `E > Ac + δ` (long), `E < Bc − δ` (short).
fn far_from_target(direction: Direction, settings: &Settings, context: &BuildContext) -> Result<Expr, &'static str> {
    let distance = settings.tp_min_distance.ok_or("tp_min_distance is not given")?;
    let ema = Operand::Column(column(context.primary, Series::Ema(settings.ema_length), context));
    Ok(Expr::Is(match direction {
        Direction::Long => {
            let close = ColumnKey::ask(context.primary, Series::Close);
            Condition::new(ema, Comparison::Greater, Operand::offset(close, distance))
        }
        Direction::Short => {
            let close = ColumnKey::bid(context.primary, Series::Close);
            Condition::new(ema, Comparison::Less, Operand::offset(close, -distance))
        }
    }))
}

/// Timeframes whose bars the run has without the strategy asking for them.
pub(super) fn is_loaded(timeframe: Timeframe, context: &BuildContext) -> bool {
    timeframe == context.primary || context.additional.contains(&timeframe)
}

/// The trend filters that count, joined as `trend_min_filters_required` says.
fn filters(settings: &Settings, context: &BuildContext) -> Result<Vec<Expr>, &'static str> {
    let mut active = Vec::new();
    for filter in settings.filters.iter().filter(|filter| filter.is_active()) {
        match (filter.timeframe, context.variant) {
            (None, Variant::V2) => {}
            (None, Variant::V1Parity) => return Err("an active trend filter has no timeframe"),
            (Some(timeframe), Variant::V1Parity) if !is_loaded(timeframe, context) => {
                return Err("the timeframe of an active trend filter is not in timeframes.additional");
            }
            (Some(timeframe), _) => active.push(bias(filter, timeframe, context)),
        }
    }
    active.dedup();
    let required = settings.trend_min_filters_required.unwrap_or(active.len()).min(active.len());
    Ok(match required {
        0 => Vec::new(),
        all if all == active.len() => active,
        1 => vec![Expr::Any(active)],
        count => vec![Expr::AtLeast { count, of: active }],
    })
}

/// Close of the visible bar above or below the EMA of its timeframe; equal is neither.
fn bias(filter: &Filter, timeframe: Timeframe, context: &BuildContext) -> Expr {
    let [close, ema] = bias_columns(filter, timeframe, context);
    let comparison = if filter.mode == FilterMode::Above { Comparison::Greater } else { Comparison::Less };
    Expr::Is(Condition::new(Operand::Column(close), comparison, Operand::Column(ema)))
}

/// What the bias of a filter compares: close and EMA.
pub(super) fn bias_columns(filter: &Filter, timeframe: Timeframe, context: &BuildContext) -> [ColumnKey; 2] {
    [Series::Close, Series::Ema(filter.ema_length)].map(|series| column(timeframe, series, context))
}

/// The guard of scenario 5, without labels that cannot occur.
fn vol_cluster(settings: &Settings) -> Result<LateGuard, &'static str> {
    let cluster = &settings.cluster;
    let allowed: Vec<String> = cluster.allowed.iter().filter(|label| can_occur(label, cluster.k)).cloned().collect();
    if allowed.is_empty() {
        return Err("intraday_vol_allowed names no cluster that can occur");
    }
    if cluster.window < cluster.k {
        return Err("intraday_vol_cluster_window is below intraday_vol_cluster_k");
    }
    // 0 and 1 mean the same.
    let hysteresis_bars = if cluster.hysteresis_bars > 1 { cluster.hysteresis_bars } else { 0 };
    if hysteresis_bars > cluster.window {
        return Err("cluster_hysteresis_bars is above intraday_vol_cluster_window");
    }
    let feature = if cluster.is_atr() {
        ClusterFeature::Atr { length: settings.atr_length }
    } else {
        let needed = u64::from(cluster.min_points) + u64::from(settings.garch_min_periods) + 1;
        if u64::from(cluster.garch_lookback) < needed {
            return Err("intraday_vol_garch_lookback is below intraday_vol_min_points + garch_min_periods + 1");
        }
        ClusterFeature::LocalGarch {
            garch: settings.garch,
            min_periods: settings.garch_min_periods,
            lookback: cluster.garch_lookback,
        }
    };
    Ok(LateGuard::VolCluster {
        feature,
        window: cluster.window,
        k: cluster.k,
        min_points: cluster.min_points,
        log_transform: cluster.log_transform,
        hysteresis_bars,
        allowed,
    })
}

/// `label` is a name that one of `k` clusters, ranked from quiet to wild, can have.
pub(super) fn can_occur(label: &str, k: u32) -> bool {
    cluster_rank(label).is_some_and(|rank| rank < k)
}

/// The overlay chain of scenario 6.
fn chain(direction: Direction, settings: &Settings, context: &BuildContext) -> Result<Vec<Expr>, &'static str> {
    if settings.chain.is_empty() {
        return Err("scenario6_timeframes is empty");
    }
    // Variant `v2` loads every timeframe the strategy declares; V1 only those of `timeframes.additional`.
    let visible = |overlay: &&Overlay| context.variant == Variant::V2 || is_loaded(overlay.timeframe, context);
    let overlays: Vec<&Overlay> = settings.chain.iter().filter(visible).collect();
    let missing = "a timeframe of scenario6_timeframes is not in timeframes.additional";
    let mut parts: Vec<Vec<Expr>> =
        overlays.into_iter().map(|overlay| overlay_conditions(overlay, direction, context)).collect();
    match settings.chain_mode {
        ChainMode::All if parts.len() < settings.chain.len() => Err(missing),
        ChainMode::All => Ok(parts.concat()),
        ChainMode::Any if parts.len() == 1 => Ok(parts.remove(0)),
        ChainMode::Any if parts.is_empty() => Err(missing),
        ChainMode::Any => Ok(vec![Expr::Any(parts.into_iter().map(Expr::All).collect())]),
    }
}

fn overlay_conditions(overlay: &Overlay, direction: Direction, context: &BuildContext) -> Vec<Expr> {
    let z = kalman_z(overlay.window_length, overlay.kalman_r, overlay.kalman_q);
    vec![
        beyond(column(overlay.timeframe, z, context), overlay.threshold(direction), direction),
        outside_band(overlay.timeframe, overlay.bands, direction, context),
    ]
}

/// Beyond the bid extreme of the bar by ATRs of the bid; only scenario 1 short takes the ATR of the ask.
fn stop(number: u8, direction: Direction, settings: &Settings, context: &BuildContext) -> Operand {
    let atr = Series::Atr(settings.atr_length);
    let (extreme, atr) = match (number, direction) {
        (_, Direction::Long) => (Series::Low, ColumnKey::bid(context.primary, atr)),
        (1, Direction::Short) => (Series::High, ColumnKey::ask(context.primary, atr)),
        (_, Direction::Short) => (Series::High, ColumnKey::bid(context.primary, atr)),
    };
    Operand::linear(ColumnKey::bid(context.primary, extreme), -direction.sign() * settings.atr_mult, atr)
}

/// EMA in scenarios 1 and 3, middle band in the others.
fn target(number: u8, settings: &Settings, context: &BuildContext) -> ColumnKey {
    let series = match number {
        1 | 3 => Series::Ema(settings.ema_length),
        _ => Series::RollingMean(settings.bands.length),
    };
    column(context.primary, series, context)
}

fn reason(number: u8, direction: Direction) -> &'static str {
    match (number, direction) {
        (1, Direction::Long) => "zscore_ema_long",
        (1, Direction::Short) => "zscore_ema_short",
        (4, Direction::Long) => "kalman_garch_z_boll_long",
        (4, Direction::Short) => "kalman_garch_z_boll_short",
        (5, Direction::Long) => "kalman_z_boll_long_vol_cluster",
        (5, Direction::Short) => "kalman_z_boll_short_vol_cluster",
        (6, Direction::Long) => "kalman_z_boll_long_multi_tf",
        (6, Direction::Short) => "kalman_z_boll_short_multi_tf",
        (_, Direction::Long) => "kalman_z_boll_long",
        (_, Direction::Short) => "kalman_z_boll_short",
    }
}

/// Tags that depend neither on the bar nor on a parameter; `signal_meta` gives all of them in order.
fn tags(number: u8) -> &'static [&'static str] {
    match number {
        1 => &["zscore", "ema", "scenario1"],
        2 => &["kalman", "bollinger", "scenario2"],
        3 => &["kalman", "bollinger", "scenario3"],
        4 => &["kalman", "garch", "bollinger", "scenario4"],
        5 => &["kalman", "bollinger", "vol_cluster", "scenario5"],
        _ => &["kalman", "bollinger", "scenario6", "multi_tf"],
    }
}
