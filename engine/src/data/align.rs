//! Bid and ask brought together: common bars, what that loses, crossed prices (`data-contract.md` §5 and §6).

use serde::{Deserialize, Serialize};

use crate::data::read::{Columns, Rows};
use crate::error::{Error, Result};
use crate::units::Timeframe;

/// What the reduction to common bars cost; field names are those of the governance block.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Alignment {
    /// `|B|`: bid bars, exact duplicates removed.
    pub bid_count_before: usize,
    /// `|A|`: ask bars, exact duplicates removed.
    pub ask_count_before: usize,
    /// `|I|`: bars on both sides.
    pub aligned_count: usize,
    /// `|B| + |A| − 2|I|`.
    pub discarded_count: usize,
    /// `max((|B| − |I|)/|B|, (|A| − |I|)/|A|)`, a fraction: `1 − |I|/|B|` with one rounding fewer.
    pub alignment_loss: f64,
}

/// Reduces both sides to their common stamps; more than 1 % lost on either side fails.
pub(crate) fn align(bid: &mut impl Rows, ask: &mut impl Rows, symbol: &str, timeframe: Timeframe) -> Result<Alignment> {
    let (bid_count, ask_count) = (bid.columns().len(), ask.columns().len());
    if bid.columns().time != ask.columns().time {
        let (bid_rows, ask_rows) = common_rows(bid.columns().time, ask.columns().time);
        bid.keep(&bid_rows);
        ask.keep(&ask_rows);
    }
    let common = bid.columns().len();
    let stats = judge(bid_count, ask_count, common).map_err(|reason| Error::DataAlignment {
        symbol: symbol.to_owned(),
        timeframe,
        bid: bid_count,
        ask: ask_count,
        common,
        reason: reason.to_owned(),
    })?;
    refuse_crossed(&bid.columns(), &ask.columns(), symbol, timeframe)?;
    Ok(stats)
}

/// The 1 % rule, in integers because `1 − 99/100` is more than 0.01 in doubles.
fn judge(bid: usize, ask: usize, common: usize) -> Result<Alignment, &'static str> {
    if common == 0 {
        return Err("no common bar");
    }
    let lost = |side: usize| side - common;
    if 100 * lost(bid) > bid || 100 * lost(ask) > ask {
        return Err("at most 1 % of either side may lack its counterpart");
    }
    let share = |side: usize| lost(side) as f64 / side as f64;
    Ok(Alignment {
        bid_count_before: bid,
        ask_count_before: ask,
        aligned_count: common,
        discarded_count: lost(bid) + lost(ask),
        alignment_loss: share(bid).max(share(ask)),
    })
}

fn common_rows(bid: &[i64], ask: &[i64]) -> (Vec<usize>, Vec<usize>) {
    let (mut b, mut a) = (0, 0);
    let (mut bid_rows, mut ask_rows) = (Vec::new(), Vec::new());
    while b < bid.len() && a < ask.len() {
        match bid[b].cmp(&ask[a]) {
            std::cmp::Ordering::Less => b += 1,
            std::cmp::Ordering::Greater => a += 1,
            std::cmp::Ordering::Equal => {
                bid_rows.push(b);
                ask_rows.push(a);
                b += 1;
                a += 1;
            }
        }
    }
    (bid_rows, ask_rows)
}

/// Ask below bid at open or close fails; highs and lows may cross.
fn refuse_crossed(bid: &Columns<'_>, ask: &Columns<'_>, symbol: &str, timeframe: Timeframe) -> Result<()> {
    for i in 0..bid.len() {
        for (field, bid_price, ask_price) in [("Open", bid.open[i], ask.open[i]), ("Close", bid.close[i], ask.close[i])]
        {
            if ask_price < bid_price {
                return Err(Error::DataSpread {
                    symbol: symbol.to_owned(),
                    timeframe,
                    timestamp_ns: bid.time[i],
                    field,
                    bid: bid_price,
                    ask: ask_price,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of `data-contract.md` §5, whole, and the boundary from the other side.
    #[test]
    fn golden_alignment() {
        for (bid, ask, common, loss) in [(100, 100, 100, 0.0), (100, 100, 99, 0.01), (99, 100, 99, 0.01)] {
            assert_eq!(judge(bid, ask, common).map(|stats| stats.alignment_loss), Ok(loss), "{bid} {ask} {common}");
        }
        for (bid, ask, common) in [(100, 99, 98), (99, 100, 98), (100_000, 100_000, 98_999), (10, 10, 9), (10, 10, 0)] {
            assert!(judge(bid, ask, common).is_err(), "{bid} {ask} {common}");
        }
        assert_eq!(judge(100, 99, 99).map(|stats| stats.discarded_count), Ok(1));
    }

    #[test]
    fn common_rows_are_found_in_order() {
        assert_eq!(common_rows(&[1, 2, 4, 7], &[0, 2, 3, 4, 8]), (vec![1, 2], vec![1, 3]));
    }
}
