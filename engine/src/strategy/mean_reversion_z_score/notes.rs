//! Tags and meta of a signal, for people. Nothing reads them back.

use serde_json::{Map, Value, json};

use super::super::{DataSlice, SignalNotes, Variant};
use super::MeanReversion;
use super::overlay::Overlay;
use super::scenarios::{bias_columns, is_loaded, kalman_z};
use super::settings::{Bands, Filter, Settings, column};
use crate::indicators::{
    ClusterOutcome, ClusterSettings, ColumnKey, Series, cluster_state, garch_sigma_local, kalman_gains,
    kalman_garch_z_local, returns,
};
use crate::rules::Rule;
use crate::units::{Bits, Direction, PriceSide, Timeframe};

/// Columns that only the notes read: both trend filters and every overlay, as far as their timeframes are loaded.
pub(super) fn columns(strategy: &MeanReversion) -> Vec<ColumnKey> {
    let mut keys = Vec::new();
    for rule in &strategy.rules.rules {
        let settings = strategy.settings(rule.direction);
        if rule.scenario_id > 1 {
            for filter in &settings.filters {
                let timeframe = filter.timeframe.filter(|timeframe| has(strategy, *timeframe));
                keys.extend(timeframe.iter().flat_map(|tf| bias_columns(filter, *tf, &strategy.context)));
            }
        }
        if rule.scenario_id == 6 {
            let loaded = settings.chain.iter().filter(|overlay| has(strategy, overlay.timeframe));
            keys.extend(loaded.flat_map(|overlay| overlay_columns(overlay, strategy)));
        }
        if rule.scenario_id == 3 {
            keys.extend(band_columns(strategy.context.primary, settings.bands, strategy));
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn has(strategy: &MeanReversion, timeframe: Timeframe) -> bool {
    is_loaded(timeframe, &strategy.context) || strategy.timeframes.contains(&timeframe)
}

fn band_columns(timeframe: Timeframe, bands: Bands, strategy: &MeanReversion) -> [ColumnKey; 2] {
    [Series::RollingMean(bands.length), Series::RollingSd(bands.length)]
        .map(|series| column(timeframe, series, &strategy.context))
}

fn overlay_columns(overlay: &Overlay, strategy: &MeanReversion) -> [ColumnKey; 4] {
    let [mean, sd] = band_columns(overlay.timeframe, overlay.bands, strategy);
    let [close, z] = [Series::Close, kalman_z(overlay.window_length, overlay.kalman_r, overlay.kalman_q)]
        .map(|series| column(overlay.timeframe, series, &strategy.context));
    [close, z, mean, sd]
}

/// Tags and meta of a signal of `rule` at the slice's bar.
pub(super) fn notes(strategy: &MeanReversion, rule: &Rule, slice: &DataSlice<'_>) -> SignalNotes {
    let mut meta = Map::new();
    meta.insert("scenario".to_owned(), rule.label.clone().into());
    if rule.scenario_id == 1 {
        return SignalNotes { tags: rule.tags.clone(), meta };
    }
    let settings = strategy.settings(rule.direction);
    let biases = [bias(&settings.filters[0], strategy, slice), bias(&settings.filters[1], strategy, slice)];
    let chain = if rule.scenario_id == 6 { chain(strategy, rule.direction, slice) } else { Vec::new() };
    let tags = tags(rule, settings, &biases, &chain);

    meta.insert("z".to_owned(), z(strategy, rule, slice).into());
    let atr = ColumnKey::bid(strategy.context.primary, Series::Atr(settings.atr_length));
    meta.insert("atr".to_owned(), slice.value(&atr).into());
    meta.insert("tags".to_owned(), tags.clone().into());
    meta.insert("boll".to_owned(), bollinger(strategy, rule, slice));
    meta.insert("prices".to_owned(), prices(slice));
    let [a, b] = biases.map(|bias| bias.json);
    meta.insert("htf".to_owned(), json!({ "A": a, "B": b }));
    match rule.scenario_id {
        3 => {
            let ema = column(strategy.context.primary, Series::Ema(settings.ema_length), &strategy.context);
            meta.insert("ema".to_owned(), slice.value(&ema).into());
        }
        5 => {
            meta.insert("vol_cluster".to_owned(), vol_cluster(strategy, rule.direction, slice));
        }
        6 => {
            let name = if strategy.context.variant == Variant::V2 { "chain" } else { "timeframes" };
            let links: Vec<Value> = chain.into_iter().map(|link| link.json.into()).collect();
            meta.insert("scenario6".to_owned(), json!({ "mode": settings.chain_mode.as_str(), name: links }));
        }
        _ => {}
    }
    SignalNotes { tags, meta }
}

fn tags(rule: &Rule, settings: &Settings, biases: &[Bias; 2], chain: &[Link]) -> Vec<String> {
    let filter = &settings.filters[0];
    let htf = [
        format!("htf_{}_ema{}", filter.timeframe_name(), filter.ema_length),
        format!("biasA_{}", biases[0].label),
        format!("biasB_{}", biases[1].label),
    ];
    // The trend tags follow the scenario's own, in 5 and 6 they stand before its last two.
    let own = &rule.tags;
    let before = if rule.scenario_id >= 5 { own.len().saturating_sub(2) } else { own.len() };
    let mut tags: Vec<String> = own[..before].iter().cloned().chain(htf).chain(own[before..].iter().cloned()).collect();
    for link in chain {
        let verdict = if link.ok { "ok" } else { "fail" };
        let tag = format!("tf_{}_{verdict}", link.timeframe.as_str().to_lowercase());
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

/// Where the close of a filter's timeframe stands.
struct Bias {
    label: &'static str,
    json: Value,
}

fn bias(filter: &Filter, strategy: &MeanReversion, slice: &DataSlice<'_>) -> Bias {
    let timeframe = filter.timeframe.filter(|timeframe| has(strategy, *timeframe));
    let [close, ema] = match timeframe {
        Some(timeframe) => bias_columns(filter, timeframe, &strategy.context).map(|key| slice.value(&key)),
        None => [None, None],
    };
    let label = match close.zip(ema) {
        None => "na",
        Some((close, ema)) if close > ema => "above",
        Some((close, ema)) if close < ema => "below",
        Some(_) => "neutral",
    };
    let json = json!({
        "tf": filter.timeframe_name(),
        "ema_len": filter.ema_length,
        "ema": ema,
        "close_price": close,
        "bias_label": label,
    });
    Bias { label, json }
}

/// The z-score the scenario looked at.
fn z(strategy: &MeanReversion, rule: &Rule, slice: &DataSlice<'_>) -> Option<f64> {
    let settings = strategy.settings(rule.direction);
    let (r, q) = (settings.kalman_r, settings.kalman_q);
    let series = match rule.scenario_id {
        4 if settings.local_z_lookback > 0 => return local_z(settings, slice),
        4 => Series::KalmanGarchZ {
            r: Bits::new(r),
            q: Bits::new(q),
            garch: settings.garch,
            min_periods: settings.garch_min_periods,
        },
        _ => kalman_z(settings.window_length, r, q),
    };
    slice.value(&column(strategy.context.primary, series, &strategy.context))
}

/// The last closes (bid) a local form looks at, and their returns.
fn local_window<'a>(slice: &'a DataSlice<'_>, lookback: u32, settings: &Settings) -> (&'a [f64], Vec<f64>) {
    let closes = slice.closes(PriceSide::Bid);
    let window = &closes[closes.len().saturating_sub(lookback as usize)..];
    (window, returns(window, settings.garch.log_returns, settings.garch.scale.get()))
}

fn local_z(settings: &Settings, slice: &DataSlice<'_>) -> Option<f64> {
    let lookback = settings.local_z_lookback;
    let (closes, returns) = local_window(slice, lookback, settings);
    let gains = kalman_gains(settings.kalman_r, settings.kalman_q, closes.len());
    let last = closes.len().checked_sub(1)?;
    let min_periods = settings.garch_min_periods;
    let z = kalman_garch_z_local(closes, &returns, &gains, last, lookback, &settings.garch, min_periods);
    Some(z).filter(|z| !z.is_nan())
}

/// What the cluster guard of scenario 5 saw.
fn vol_cluster(strategy: &MeanReversion, direction: Direction, slice: &DataSlice<'_>) -> Value {
    let settings = strategy.settings(direction);
    let cluster = &settings.cluster;
    let series = if cluster.is_atr() {
        let atr = ColumnKey::bid(strategy.context.primary, Series::Atr(settings.atr_length));
        slice.column(&atr).map(<[f64]>::to_vec).unwrap_or_default()
    } else {
        local_sigma(settings, slice)
    };
    let (window, k, min_points) = (cluster.window, cluster.k, cluster.min_points);
    let log_transform = cluster.log_transform;
    let (sample_size, outcome) = cluster_state(&series, &ClusterSettings { window, k, min_points, log_transform });
    let mut meta = Map::new();
    let mut put = |key: &str, value: Value| meta.insert(key.to_owned(), value);
    put("feature", cluster.feature.clone().into());
    put("window", window.into());
    put("k", k.into());
    put("min_points", min_points.into());
    put("log_transform", log_transform.into());
    put("hysteresis_bars", cluster.hysteresis_bars.into());
    put("direction", direction.as_str().into());
    put("allowed_labels", cluster.allowed.clone().into());
    put("sample_size", sample_size.into());
    let status = match outcome {
        ClusterOutcome::InsufficientPoints => "insufficient_points",
        ClusterOutcome::InsufficientUnique => "insufficient_unique",
        ClusterOutcome::Ok(state) => {
            let label = state.label();
            let allowed = cluster.allowed.contains(&label);
            let agrees = state.run >= cluster.hysteresis_bars.max(1);
            put("label", label.into());
            put("sigma", state.sigma.into());
            put("centers", state.centers.into());
            if let Some(centers) = state.centers_log {
                put("centers_log", centers.into());
            }
            put("allowed_now", allowed.into());
            put("hysteresis_ok", agrees.into());
            match (agrees, allowed) {
                (false, _) => "hysteresis_block",
                (true, false) => "label_block",
                (true, true) => "ok",
            }
        }
    };
    put("status", status.into());
    meta.into()
}

fn local_sigma(settings: &Settings, slice: &DataSlice<'_>) -> Vec<f64> {
    let lookback = settings.cluster.garch_lookback;
    let (closes, returns) = local_window(slice, lookback, settings);
    let mut sigma = Vec::new();
    let last = closes.len().saturating_sub(1);
    garch_sigma_local(&returns, last, lookback, &settings.garch, settings.garch_min_periods, &mut sigma);
    sigma
}

/// The band the signal used and, where it is the target, the middle.
fn bollinger(strategy: &MeanReversion, rule: &Rule, slice: &DataSlice<'_>) -> Value {
    let settings = strategy.settings(rule.direction);
    let (mid, band) = band(strategy.context.primary, settings.bands, rule.direction, strategy, slice);
    let (lower, upper) = match rule.direction {
        Direction::Long => (band, None),
        Direction::Short => (None, band),
    };
    json!({ "upper": upper, "mid": mid.filter(|_| rule.scenario_id != 3), "lower": lower })
}

/// Middle, and lower (long) or upper (short) band.
fn band(
    timeframe: Timeframe,
    bands: Bands,
    direction: Direction,
    strategy: &MeanReversion,
    slice: &DataSlice<'_>,
) -> (Option<f64>, Option<f64>) {
    let [mean, sd] = band_columns(timeframe, bands, strategy).map(|key| slice.value(&key));
    (mean, mean.zip(sd).map(|(mean, sd)| mean + -direction.sign() * bands.std_factor * sd))
}

fn prices(slice: &DataSlice<'_>) -> Value {
    let last = |side| slice.closes(side).last().copied();
    let (bid, ask) = (last(PriceSide::Bid), last(PriceSide::Ask));
    json!({ "bid_close": bid, "ask_close": ask, "spread": bid.zip(ask).map(|(bid, ask)| ask - bid) })
}

/// One overlay of scenario 6 as it stands at the bar.
struct Link {
    timeframe: Timeframe,
    ok: bool,
    json: Map<String, Value>,
}

fn chain(strategy: &MeanReversion, direction: Direction, slice: &DataSlice<'_>) -> Vec<Link> {
    let chain = &strategy.settings(direction).chain;
    chain.iter().map(|overlay| link(overlay, strategy, direction, slice)).collect()
}

/// Tests in V1's order; values are written as far as the tests got.
fn link(overlay: &Overlay, strategy: &MeanReversion, direction: Direction, slice: &DataSlice<'_>) -> Link {
    let mut values = Map::new();
    let status = status(overlay, strategy, direction, slice, &mut values);
    let ok = status == "ok";
    let threshold = overlay.threshold(direction);
    // V1 leaves the threshold out where it was passed or not reached; v2 always writes it.
    let reached = !matches!(status, "ok" | "no_price" | "no_zscore");
    if strategy.context.variant == Variant::V2 || reached {
        values.insert("threshold".to_owned(), threshold.into());
    }
    values.insert("tf".to_owned(), overlay.timeframe.as_str().into());
    values.insert("direction".to_owned(), direction.as_str().into());
    values.insert("ok".to_owned(), ok.into());
    values.insert("status".to_owned(), status.into());
    let params = json!({
        "window_length": overlay.window_length,
        "b_b_length": overlay.bands.length,
        "std_factor": overlay.bands.std_factor,
        "kalman_r": overlay.kalman_r,
        "kalman_q": overlay.kalman_q,
        "z_score_long": overlay.z_score_long,
        "z_score_short": overlay.z_score_short,
    });
    values.insert("params".to_owned(), params);
    Link { timeframe: overlay.timeframe, ok, json: values }
}

fn status(
    overlay: &Overlay,
    strategy: &MeanReversion,
    direction: Direction,
    slice: &DataSlice<'_>,
    values: &mut Map<String, Value>,
) -> &'static str {
    let long = direction == Direction::Long;
    let [close, z, ..] = overlay_columns(overlay, strategy).map(|key| slice.value(&key));
    let Some(price) = close.filter(|price| price.is_finite()) else { return "no_price" };
    let Some(z) = z.filter(|z| z.is_finite()) else { return "no_zscore" };
    values.insert("z".to_owned(), z.into());
    let threshold = overlay.threshold(direction);
    if long && z > threshold {
        return "z_above_threshold";
    }
    if !long && z < threshold {
        return "z_below_threshold";
    }
    values.insert("price".to_owned(), price.into());
    let Some(band) = band(overlay.timeframe, overlay.bands, direction, strategy, slice).1 else {
        return if long { "no_lower_band" } else { "no_upper_band" };
    };
    values.insert(if long { "lower" } else { "upper" }.to_owned(), band.into());
    match (long, price <= band, price >= band) {
        (true, true, _) | (false, _, true) => "ok",
        (true, ..) => "price_above_lower",
        (false, ..) => "price_below_upper",
    }
}
