//! Volatility clusters: one-dimensional k-means without randomness, and the state read from it.

/// Centres and labels found by [`kmeans`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Clustering {
    /// One centre per cluster index, not sorted.
    pub centers: Vec<f64>,
    /// Cluster index of each value.
    pub labels: Vec<u32>,
}

const ROUNDS: usize = 30;

/// One-dimensional k-means, started from quantiles.
///
/// `k' = max(1, min(k, distinct values))` centres start at the quantiles `j / (k' + 1)` (linear between order
/// statistics). At most 30 rounds: each value goes to the nearest centre (lowest index on ties), each centre to the mean
/// of its members (an empty one stays). Converged when every centre moved by at most `1e-6 + 1e-4·|m|`: then the new
/// centres are returned with the labels of the old ones. Otherwise labels are taken once more from the last centres.
/// Centres need not ascend and may coincide. Empty for empty input. `values`: defined, any unit.
///
/// Lloyd (1982), IEEE Transactions on Information Theory 28(2), 129–137.
pub fn kmeans(values: &[f64], k: u32) -> Clustering {
    if values.is_empty() {
        return Clustering::default();
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let distinct = 1 + sorted.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let k = distinct.min(k.max(1) as usize);
    if k == 1 {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        return Clustering { centers: vec![mean], labels: vec![0; values.len()] };
    }
    let mut centers: Vec<f64> = (1..=k).map(|j| quantile(&sorted, j as f64 / (k + 1) as f64)).collect();
    let mut labels = vec![0; values.len()];
    let mut members = vec![(0.0, 0_u32); k];
    for _ in 0..ROUNDS {
        assign(values, &centers, &mut labels);
        members.fill((0.0, 0));
        for (value, &label) in values.iter().zip(&labels) {
            let (sum, count) = &mut members[label as usize];
            *sum += value;
            *count += 1;
        }
        let mut converged = true;
        for (center, &(sum, count)) in centers.iter_mut().zip(&members) {
            let moved = if count == 0 { *center } else { sum / f64::from(count) };
            converged &= (moved - *center).abs() <= 1e-6 + 1e-4 * center.abs();
            *center = moved;
        }
        if converged {
            return Clustering { centers, labels };
        }
    }
    assign(values, &centers, &mut labels);
    Clustering { centers, labels }
}

fn assign(values: &[f64], centers: &[f64], labels: &mut [u32]) {
    for (value, label) in values.iter().zip(labels) {
        let mut best = f64::INFINITY;
        let mut index = 0;
        for (j, center) in (0_u32..).zip(centers) {
            let distance = (value - center).abs();
            if distance < best {
                best = distance;
                index = j;
            }
        }
        *label = index;
    }
}

/// Quantile `q` of sorted values, linear between order statistics at position `q·(n − 1)`.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let low = sorted[below];
    let high = sorted[(below + 1).min(sorted.len() - 1)];
    low + (high - low) * (position - below as f64)
}

/// How values are clustered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterSettings {
    /// Last values clustered; 0 counts as 1.
    pub window: u32,
    /// Clusters; 0 counts as 1.
    pub k: u32,
    /// Defined values needed; 0 counts as 1.
    pub min_points: u32,
    /// Cluster logarithms.
    pub log_transform: bool,
}

/// Clusters of the last values of a series, ranked by their centres.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterState {
    /// Cluster index of each value of the tail, oldest first.
    pub labels: Vec<u32>,
    /// Cluster index of the last value.
    pub current: u32,
    /// Its rank among the centres, ascending, ties by index; named by [`cluster_label`].
    pub rank: u32,
    /// Equal labels at the end of the tail, at least 1.
    pub run: u32,
    /// Centres, ascending, in the unit of the series.
    pub centers: Vec<f64>,
    /// Centres of the logarithms, ascending; none without `log_transform`.
    pub centers_log: Option<Vec<f64>>,
    /// Last value, untransformed.
    pub sigma: f64,
}

impl ClusterState {
    /// Name of the last value's cluster.
    pub fn label(&self) -> String {
        cluster_label(self.rank)
    }
}

/// What came of clustering a series. (The reference's `clustering_failed` and `series_unavailable` cannot occur: the
/// tail is never empty, and an empty series has too few points.)
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterOutcome {
    /// Fewer than `min_points` defined values.
    InsufficientPoints,
    /// Fewer than `k` values in the tail.
    InsufficientUnique,
    /// Clustered.
    Ok(ClusterState),
}

const NAMES: [&str; 5] = ["low", "mid", "high", "very_high", "extreme"];

/// Name of a cluster by the rank of its centre: `low`, `mid`, `high`, `very_high`, `extreme`, then `cluster_5`, ….
pub fn cluster_label(rank: u32) -> String {
    NAMES.get(rank as usize).map_or_else(|| format!("cluster_{rank}"), |name| (*name).to_owned())
}

/// Rank that bears the name `label`, the inverse of [`cluster_label`].
pub(crate) fn cluster_rank(label: &str) -> Option<u32> {
    if let Some(rank) = NAMES.iter().position(|name| *name == label) {
        return u32::try_from(rank).ok();
    }
    let rank: u32 = label.strip_prefix("cluster_")?.parse().ok()?;
    (cluster_label(rank) == label).then_some(rank)
}

/// Clusters the last values of `series`; returns how many defined values there were, and what came of them.
///
/// NaN are dropped first; what is left is the sample size. The last `window` values (logarithms of
/// `max(value, 1e-12)` with `log_transform`) go to [`kmeans`]; centres of logarithms are transformed back with `exp`.
pub fn cluster_state(series: &[f64], settings: &ClusterSettings) -> (usize, ClusterOutcome) {
    let defined: Vec<f64> = series.iter().copied().filter(|value| !value.is_nan()).collect();
    let sample_size = defined.len();
    if sample_size < settings.min_points.max(1) as usize {
        return (sample_size, ClusterOutcome::InsufficientPoints);
    }
    let tail = &defined[sample_size.saturating_sub(settings.window.max(1) as usize)..];
    let Some(&sigma) = tail.last() else { return (sample_size, ClusterOutcome::InsufficientPoints) };
    if tail.len() < settings.k.max(1) as usize {
        return (sample_size, ClusterOutcome::InsufficientUnique);
    }
    let clustering = if settings.log_transform {
        let logs: Vec<f64> = tail.iter().map(|value| libm::log(value.max(1e-12))).collect();
        kmeans(&logs, settings.k)
    } else {
        kmeans(tail, settings.k)
    };
    (sample_size, ClusterOutcome::Ok(ranked(clustering, sigma, settings.log_transform)))
}

fn ranked(clustering: Clustering, sigma: f64, logged: bool) -> ClusterState {
    let Clustering { centers, labels } = clustering;
    let current = labels.last().copied().unwrap_or(0);
    let own = centers.get(current as usize).copied().unwrap_or(f64::NAN);
    let rank = (0_u32..).zip(&centers).filter(|&(j, c)| *c < own || (*c == own && j < current)).count();
    let run = labels.iter().rev().take_while(|&&label| label == current).count();
    let mut ascending = centers;
    ascending.sort_by(f64::total_cmp);
    let (centers, centers_log) = if logged {
        (ascending.iter().map(|center| libm::exp(*center)).collect(), Some(ascending))
    } else {
        (ascending, None)
    };
    ClusterState {
        labels,
        current,
        rank: u32::try_from(rank).unwrap_or(u32::MAX),
        run: u32::try_from(run).unwrap_or(u32::MAX),
        centers,
        centers_log,
        sigma,
    }
}
