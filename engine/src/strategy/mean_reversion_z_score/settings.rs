//! The parameters of one direction, typed: given values, overrides and defaults resolved.

use serde_json::{Map, Value};

use super::super::{BuildContext, ParamValues, Variant, Violations};
use super::overlay::{self, Overlay};
use crate::error::{Violation, nearest};
use crate::indicators::{ColumnKey, GarchKey, HtfMethod, Series};
use crate::units::{Bits, Direction, PriceSide, Timeframe};

/// Everything the rules of one direction read.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) ema_length: u32,
    pub(super) atr_length: u32,
    pub(super) atr_mult: f64,
    pub(super) bands: Bands,
    pub(super) window_length: u32,
    pub(super) z_score_long: f64,
    pub(super) z_score_short: f64,
    pub(super) kalman_r: f64,
    pub(super) kalman_q: f64,
    /// None only where no scenario reads it.
    pub(super) tp_min_distance: Option<f64>,
    /// A and B.
    pub(super) filters: [Filter; 2],
    pub(super) trend_min_filters_required: Option<usize>,
    pub(super) garch: GarchKey,
    pub(super) garch_min_periods: u32,
    pub(super) local_z_lookback: u32,
    pub(super) cluster: Cluster,
    pub(super) chain_mode: ChainMode,
    pub(super) chain: Vec<Overlay>,
}

/// Bollinger bands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bands {
    pub(super) length: u32,
    pub(super) std_factor: f64,
}

/// A trend filter on another timeframe.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Filter {
    /// None: disabled.
    pub(super) timeframe: Option<Timeframe>,
    pub(super) ema_length: u32,
    pub(super) mode: FilterMode,
}

impl Filter {
    /// It can keep a signal back.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.mode, FilterMode::Above | FilterMode::Below)
    }

    /// Name of the timeframe, `NONE` if disabled.
    pub(super) fn timeframe_name(&self) -> &'static str {
        self.timeframe.map_or("NONE", Timeframe::as_str)
    }
}

/// What a trend filter asks for. The same for both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FilterMode {
    /// `none` and `both`: always passes.
    Always,
    /// Close above its EMA.
    Above,
    /// Close below its EMA.
    Below,
}

/// How overlays of scenario 6 are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChainMode {
    /// Every timeframe.
    All,
    /// At least one.
    Any,
}

impl ChainMode {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Any => "any",
        }
    }
}

/// The guard of scenario 5.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    /// Name as given.
    pub(super) feature: String,
    pub(super) window: u32,
    pub(super) k: u32,
    pub(super) min_points: u32,
    pub(super) log_transform: bool,
    pub(super) garch_lookback: u32,
    /// Trimmed, lower case, sorted.
    pub(super) allowed: Vec<String>,
    pub(super) hysteresis_bars: u32,
}

impl Cluster {
    /// The ATR is clustered instead of the GARCH deviation.
    pub(super) fn is_atr(&self) -> bool {
        self.feature == "atr_points"
    }
}

impl Settings {
    /// Reads checked values; scenario 6 is resolved for `direction`.
    pub(super) fn read(values: &ParamValues, direction: Direction, context: &BuildContext) -> Self {
        let mut settings = Self {
            ema_length: values.count("ema_length"),
            atr_length: values.count("atr_length"),
            atr_mult: values.float("atr_mult"),
            bands: Bands { length: values.count("b_b_length"), std_factor: values.float("std_factor") },
            window_length: values.count("window_length"),
            z_score_long: values.float("z_score_long"),
            z_score_short: values.float("z_score_short"),
            kalman_r: values.float("kalman_r"),
            kalman_q: values.float("kalman_q"),
            tp_min_distance: values.opt_float("tp_min_distance"),
            filters: [
                filter(values, ["htf_tf", "htf_ema", "htf_filter"], context.primary),
                filter(values, ["extra_htf_tf", "extra_htf_ema", "extra_htf_filter"], context.primary),
            ],
            trend_min_filters_required: values
                .opt_int("trend_min_filters_required")
                .map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
            garch: GarchKey {
                alpha: Bits::new(values.float("garch_alpha")),
                beta: Bits::new(values.float("garch_beta")),
                omega: values.opt_float("garch_omega").map(Bits::new),
                log_returns: values.flag("garch_use_log_returns"),
                scale: Bits::new(values.float("garch_scale")),
                sigma_floor: Bits::new(values.float("garch_sigma_floor")),
            },
            garch_min_periods: values.count("garch_min_periods"),
            local_z_lookback: values.count("local_z_lookback"),
            cluster: cluster(values),
            chain_mode: if values.text("scenario6_mode") == "any" { ChainMode::Any } else { ChainMode::All },
            chain: Vec::new(),
        };
        settings.chain = overlay::resolve(values, &settings, direction, context);
        settings
    }

    /// The same values, from which these were read, resolved for `direction`.
    pub(super) fn turned(&self, values: &ParamValues, direction: Direction, context: &BuildContext) -> Self {
        Self { chain: overlay::resolve(values, self, direction, context), ..self.clone() }
    }

    /// The threshold of the direction's own z-score.
    pub(super) fn threshold(&self, direction: Direction) -> f64 {
        match direction {
            Direction::Long => self.z_score_long,
            Direction::Short => self.z_score_short,
        }
    }
}

fn filter(values: &ParamValues, [timeframe, ema, mode]: [&str; 3], primary: Timeframe) -> Filter {
    let name = values.text(timeframe);
    let timeframe = if name.trim().eq_ignore_ascii_case("AUTO") { automatic(primary) } else { name.parse().ok() };
    let mode = match values.text(mode) {
        "above" => FilterMode::Above,
        "below" => FilterMode::Below,
        _ => FilterMode::Always,
    };
    Filter { timeframe, ema_length: values.count(ema), mode }
}

fn automatic(primary: Timeframe) -> Option<Timeframe> {
    match primary {
        Timeframe::M5 => Some(Timeframe::H1),
        Timeframe::M15 | Timeframe::M30 => Some(Timeframe::H4),
        _ => None,
    }
}

fn cluster(values: &ParamValues) -> Cluster {
    let mut allowed: Vec<String> =
        values.texts("intraday_vol_allowed").iter().map(|label| label.trim().to_lowercase()).collect();
    allowed.retain(|label| !label.is_empty());
    allowed.sort_unstable();
    allowed.dedup();
    Cluster {
        feature: values.text("intraday_vol_feature").to_owned(),
        window: values.count("intraday_vol_cluster_window"),
        k: values.count("intraday_vol_cluster_k"),
        min_points: values.count("intraday_vol_min_points"),
        log_transform: values.flag("intraday_vol_log_transform"),
        garch_lookback: match values.int("intraday_vol_garch_lookback") {
            ..=0 => 500,
            _ => values.count("intraday_vol_garch_lookback"),
        },
        allowed,
        hysteresis_bars: values.count("cluster_hysteresis_bars"),
    }
}

/// A bid column of any timeframe, read as the variant asks for.
pub(super) fn column(timeframe: Timeframe, series: Series, context: &BuildContext) -> ColumnKey {
    let native = context.variant == Variant::V2 || timeframe == context.primary;
    let method = if native { HtfMethod::Native } else { HtfMethod::Stepwise };
    ColumnKey { timeframe, side: PriceSide::Bid, series, method }
}

/// A timeframe by name, `PRIMARY` being the primary one; any letter case.
pub(super) fn timeframe_or_primary(name: &str, primary: Timeframe) -> Option<Timeframe> {
    if name.trim().eq_ignore_ascii_case("PRIMARY") { Some(primary) } else { name.parse().ok() }
}

/// The complaint about a name that is neither a timeframe nor `PRIMARY`.
pub(super) fn unknown_timeframe(path: String, name: &str) -> Violation {
    let names = Timeframe::ALL.map(Timeframe::as_str).into_iter().chain(["PRIMARY"]);
    let violation = Violation::value(path, format!("must be a timeframe or PRIMARY, got {}", Value::from(name)));
    match nearest(name, names) {
        Some(near) => violation.with_hint(format!("did you mean `{near}`?")),
        None => violation,
    }
}

/// Checks what lies inside lists and objects of `given`, whose outer types are right. Paths start with `prefix`.
pub(super) fn check_contents(
    given: &Map<String, Value>,
    prefix: &str,
    context: &BuildContext,
    violations: &mut Violations,
) {
    if let Some(Value::Array(names)) = given.get("scenario6_timeframes") {
        for (index, name) in names.iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            if !name.trim().is_empty() && timeframe_or_primary(name, context.primary).is_none() {
                violations.push(unknown_timeframe(format!("{prefix}scenario6_timeframes[{index}]"), name));
            }
        }
    }
    if let Some(Value::Object(params)) = given.get("scenario6_params") {
        overlay::check_params(params, &format!("{prefix}scenario6_params"), context, violations);
    }
}
