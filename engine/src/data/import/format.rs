//! The formats of vendors: which one a file is, told from its content, and what the format itself states.
//!
//! Every format is tried; one must fit. The `generic` one is only asked when no vendor's does.

use std::path::Path;

use crate::data::import::refuse;
use crate::data::import::stamp::date_parts;
use crate::data::import::text::Head;
use crate::error::Result;

/// Which price a series holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// What the market pays.
    Bid,
    /// What the market asks.
    Ask,
    /// The middle between the two.
    Mid,
    /// The last trade.
    Last,
}

impl Side {
    /// All sides.
    pub const ALL: [Self; 4] = [Self::Bid, Self::Ask, Self::Mid, Self::Last];

    /// `bid`, `ask`, `mid` or `last`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bid => "bid",
            Self::Ask => "ask",
            Self::Mid => "mid",
            Self::Last => "last",
        }
    }

    /// The side of that name, in any letter case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|side| side.as_str().eq_ignore_ascii_case(text.trim()))
    }
}

/// A text format of a vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Candle export of the Dukascopy website.
    DukascopyWeb,
    /// Candle export of Dukascopy's JForex.
    DukascopyJforex,
    /// Bars exported from a MetaTrader 5 terminal.
    Mt5Export,
    /// `copy_rates_…` of the MetaTrader 5 Python package, written as CSV.
    Mt5Python,
    /// HistData.com, generic ASCII, one minute.
    HistdataM1,
    /// Chart export of TradingView.
    Tradingview,
    /// Klines of the Binance archive.
    BinanceKlines,
    /// Daily prices of Yahoo Finance.
    Yahoo,
    /// Candles of FXCM's REST interface, both sides in a row.
    FxcmCandles,
    /// One-minute bars of FXCM.
    FxcmM1,
    /// Quote bars of QuantConnect Lean, both sides in a row.
    LeanQuote,
    /// Broker history with prices in whole points.
    Points,
    /// Any table with a header that names date, open, high, low and close.
    Generic,
}

impl Format {
    /// All formats; the generic one last.
    pub const ALL: [Self; 13] = [
        Self::DukascopyWeb,
        Self::DukascopyJforex,
        Self::Mt5Export,
        Self::Mt5Python,
        Self::HistdataM1,
        Self::Tradingview,
        Self::BinanceKlines,
        Self::Yahoo,
        Self::FxcmCandles,
        Self::FxcmM1,
        Self::LeanQuote,
        Self::Points,
        Self::Generic,
    ];

    /// Name for `--format`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DukascopyWeb => "dukascopy-web",
            Self::DukascopyJforex => "dukascopy-jforex",
            Self::Mt5Export => "mt5-export",
            Self::Mt5Python => "mt5-python",
            Self::HistdataM1 => "histdata-m1",
            Self::Tradingview => "tradingview",
            Self::BinanceKlines => "binance-klines",
            Self::Yahoo => "yahoo",
            Self::FxcmCandles => "fxcm-candles",
            Self::FxcmM1 => "fxcm-m1",
            Self::LeanQuote => "lean-quote",
            Self::Points => "points",
            Self::Generic => "generic",
        }
    }

    /// The format of that name; else the closest name, if one is close.
    pub fn parse(text: &str) -> Result<Self, Option<&'static str>> {
        let found = Self::ALL.into_iter().find(|format| format.as_str() == text.trim());
        found.ok_or_else(|| crate::error::nearest(text, Self::ALL.map(Self::as_str)))
    }

    /// What the format does not state about its clock, for the message that asks for it.
    fn missing_zone(self) -> &'static str {
        match self {
            Self::Mt5Export | Self::Mt5Python => {
                "MetaTrader 5 stamps bars with the clock of the broker's server, whose offset the file does not state"
            }
            Self::HistdataM1 => {
                "HistData documents EST without daylight saving, but files were found to hold New York local time"
            }
            Self::Yahoo => "the file holds trading dates of an exchange without a zone",
            Self::LeanQuote => {
                "Lean files carry no zone: it is that of the data provider (OANDA UTC, FXCM UTC-05:00 all year)"
            }
            Self::FxcmCandles => "the file does not state its zone (FXCM's REST interface delivers UTC)",
            _ => "the file does not state its zone",
        }
    }
}

/// The zone a format or file states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StatedZone {
    /// A name, for `Zone::parse`, and what states it.
    Named(String),
    /// Each stamp carries its offset.
    InStamps,
    /// Nothing; why.
    None(&'static str),
}

/// The side a format states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatedSide {
    /// This one.
    Is(Side),
    /// This one as long as no volume of an exchange is reported: MetaTrader draws such symbols from the last price.
    Unless { side: Side, exchange_volume: Option<usize> },
    /// None.
    Unstated,
}

/// Columns of open, high, low, close.
pub(crate) type Ohlc = [usize; 4];

/// Where the prices stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PriceColumns {
    /// One price.
    One(Ohlc),
    /// Bid and ask in a row.
    Both { bid: Ohlc, ask: Ohlc },
}

/// How to read a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) format: Format,
    /// Columns of every row.
    pub(crate) width: usize,
    pub(crate) date: usize,
    /// Time of day, where it stands apart.
    pub(crate) time: Option<usize>,
    pub(crate) prices: PriceColumns,
    /// Volume; with both sides in a row, that of the bid and that of the ask.
    pub(crate) volume: Option<[usize; 2]>,
    /// Spread in points.
    pub(crate) spread: Option<usize>,
    pub(crate) zone: StatedZone,
    pub(crate) side: StatedSide,
    /// The vendor writes day, month, year.
    pub(crate) day_first: bool,
    /// Epoch numbers count on the clock of the server, not since 1970 UTC.
    pub(crate) server_epoch: bool,
    /// Prices are whole points.
    pub(crate) in_points: bool,
}

/// The layout of the file, or why it has none.
pub(crate) fn detect(path: &Path, head: &Head, forced: Option<Format>) -> Result<Layout> {
    if let Some((what, found)) = not_bars(head) {
        return Err(refuse(path, Some(1), format!("must hold bars: {what}"), found, None));
    }
    let known = || Format::ALL.map(Format::as_str).join(", ");
    if let Some(format) = forced {
        return fit(format, head).ok_or_else(|| {
            let rule = format!("must be of the format {} as --format says", format.as_str());
            refuse(path, Some(1), rule, head.first_line(), Some(format!("--format is one of {}", known())))
        });
    }
    let vendors = Format::ALL.into_iter().filter(|format| *format != Format::Generic);
    let mut fitting: Vec<Layout> = vendors.filter_map(|format| fit(format, head)).collect();
    if fitting.is_empty() {
        fitting.extend(fit(Format::Generic, head));
    }
    match fitting.len() {
        1 => Ok(fitting.remove(0)),
        0 => Err(refuse(
            path,
            Some(1),
            "must be of a known format".to_owned(),
            head.first_line(),
            Some(format!(
                "--format is one of {}; generic reads any table whose header names date, open, high, low and close",
                known()
            )),
        )),
        _ => {
            let names: Vec<&str> = fitting.iter().map(|layout| layout.format.as_str()).collect();
            Err(refuse(
                path,
                Some(1),
                format!("must be of one format; {} fit", names.join(" and ")),
                head.first_line(),
                Some(format!("--format {}", names.join(" or --format "))),
            ))
        }
    }
}

/// What else the file is.
fn not_bars(head: &Head) -> Option<(&'static str, String)> {
    if head.is_json() {
        return Some(("this is JSON; only tables of text are imported", head.first_line()));
    }
    let has = |name: &str| head.find(name).is_some();
    if has("currency") && (has("impact") || has("event")) {
        return Some(("this is an economic calendar, which news_filter reads from Parquet", head.first_line()));
    }
    let ticks = "these are ticks (single quotes), not bars";
    if has("bid") && has("ask") && !has("open") {
        return Some((ticks, head.first_line()));
    }
    // 20200101 170000065,1.121200,1.121720,0
    let row = head.rows.first()?;
    let tick_stamp = row.first().is_some_and(|cell| cell.len() == 18 && cell.as_bytes()[8] == b' ');
    (head.names.is_none() && row.len() == 4 && tick_stamp).then(|| (ticks, head.first_line()))
}

fn fit(format: Format, head: &Head) -> Option<Layout> {
    let one = |date, ohlc: Ohlc, volume: Option<usize>| Layout {
        format,
        width: head.width(),
        date,
        time: None,
        prices: PriceColumns::One(ohlc),
        volume: volume.map(|v| [v, v]),
        spread: None,
        zone: StatedZone::None(format.missing_zone()),
        side: StatedSide::Unstated,
        day_first: false,
        server_epoch: false,
        in_points: false,
    };
    match format {
        Format::DukascopyWeb => {
            let names = head.names.as_ref()?;
            let zone = match names.first()?.as_str() {
                "Gmt time" => StatedZone::Named("UTC".to_owned()),
                "Local time" => StatedZone::InStamps,
                _ => return None,
            };
            is_header(names.get(1..)?, &["Open", "High", "Low", "Close", "Volume"])?;
            Some(Layout { zone, day_first: true, ..one(0, [1, 2, 3, 4], Some(5)) })
        }
        Format::DukascopyJforex => {
            let names = head.names.as_ref()?;
            let zone = names.first()?.strip_prefix("Time (")?.strip_suffix(')')?;
            is_header(names.get(1..)?, &["Open", "High", "Low", "Close", "Volume"])?;
            let zone = StatedZone::Named(zone.to_owned());
            Some(Layout { zone, day_first: true, ..one(0, [1, 2, 3, 4], Some(5)) })
        }
        Format::Mt5Export => {
            let at = |name| head.find_exact(name);
            let ohlc = [at("<OPEN>")?, at("<HIGH>")?, at("<LOW>")?, at("<CLOSE>")?];
            let side = StatedSide::Unless { side: Side::Bid, exchange_volume: at("<VOL>") };
            let (time, spread) = (at("<TIME>"), at("<SPREAD>"));
            Some(Layout { time, spread, side, ..one(at("<DATE>")?, ohlc, at("<TICKVOL>").or(at("<VOL>"))) })
        }
        Format::Mt5Python => {
            let names = head.names.as_ref()?;
            // The first column is the row number when pandas wrote the file.
            let from = usize::from(names.first()?.is_empty());
            is_header(names.get(from..from + 6)?, &["time", "open", "high", "low", "close", "tick_volume"])?;
            let exchange_volume = head.find_exact("real_volume");
            Some(Layout {
                spread: head.find_exact("spread"),
                side: StatedSide::Unless { side: Side::Bid, exchange_volume },
                server_epoch: true,
                ..one(from, [from + 1, from + 2, from + 3, from + 4], Some(from + 5))
            })
        }
        Format::HistdataM1 => {
            let row = head.rows.first()?;
            let stamp = row.first()?;
            let fits = head.names.is_none()
                && head.delimiter == b';'
                && row.len() == 6
                && stamp.len() == 15
                && stamp.as_bytes()[8] == b' ';
            // HistData publishes bars of the bid only.
            fits.then(|| Layout { side: StatedSide::Is(Side::Bid), ..one(0, [1, 2, 3, 4], Some(5)) })
        }
        Format::Tradingview => {
            let names = head.names.as_ref()?;
            is_header(names.get(..5)?, &["time", "open", "high", "low", "close"])?;
            // Indicator columns have any name, also one name several times; the columns of MetaTrader are its own.
            if head.find_exact("spread").is_some() || head.find_exact("real_volume").is_some() {
                return None;
            }
            let stamp = head.rows.first()?.first()?;
            let zone = if stamp.bytes().all(|b| b.is_ascii_digit()) {
                StatedZone::Named("UTC".to_owned())
            } else if stamp.contains('T') {
                StatedZone::InStamps
            } else if date_parts(stamp).is_some() {
                StatedZone::None("a chart exported with dates instead of UNIX time does not state its zone")
            } else {
                return None;
            };
            Some(Layout { zone, ..one(0, [1, 2, 3, 4], head.find_exact("Volume").or(head.find_exact("volume"))) })
        }
        Format::BinanceKlines => {
            let row = head.rows.first()?;
            let epoch = |cell: &str| matches!(cell.len(), 13 | 16) && cell.bytes().all(|b| b.is_ascii_digit());
            let headed = head.names.as_ref().is_none_or(|names| names.first().is_some_and(|name| name == "open_time"));
            let fits = headed && row.len() == 12 && epoch(&row[0]) && epoch(&row[6]);
            fits.then(|| Layout {
                zone: StatedZone::Named("UTC".to_owned()),
                side: StatedSide::Is(Side::Last),
                ..one(0, [1, 2, 3, 4], Some(5))
            })
        }
        Format::Yahoo => {
            let names = head.names.as_ref()?;
            is_header(names.get(..5)?, &["Date", "Open", "High", "Low", "Close"])?;
            // The adjusted close is left alone: it fits no other price of its row.
            head.find_exact("Adj Close")?;
            (names.len() == 7).then_some(())?;
            Some(Layout { side: StatedSide::Is(Side::Last), ..one(0, [1, 2, 3, 4], Some(head.find_exact("Volume")?)) })
        }
        Format::FxcmCandles => {
            let at = |name: &str| head.find_exact(name);
            let bid = [at("bidopen")?, at("bidhigh")?, at("bidlow")?, at("bidclose")?];
            let ask = [at("askopen")?, at("askhigh")?, at("asklow")?, at("askclose")?];
            let prices = PriceColumns::Both { bid, ask };
            Some(Layout { prices, ..one(at("date")?, bid, at("tickqty")) })
        }
        Format::FxcmM1 => {
            let names = head.names.as_ref()?;
            is_header(names, &["timestamp", "open", "high", "low", "close"])?;
            let stamp = head.rows.first()?.first()?;
            let offset = stamp.get(19..)?;
            (offset.len() == 6 && offset.starts_with(['+', '-'])).then_some(())?;
            Some(Layout { zone: StatedZone::InStamps, ..one(0, [1, 2, 3, 4], None) })
        }
        Format::LeanQuote => {
            let row = head.rows.first()?;
            let stamp = row.first()?;
            let fits = head.names.is_none()
                && head.delimiter == b','
                && row.len() == 11
                && stamp.len() == 14
                && stamp.as_bytes()[8] == b' '
                && stamp.as_bytes()[11] == b':';
            fits.then(|| Layout {
                prices: PriceColumns::Both { bid: [1, 2, 3, 4], ask: [6, 7, 8, 9] },
                volume: Some([5, 10]),
                ..one(0, [1, 2, 3, 4], None)
            })
        }
        Format::Points => {
            let names = head.names.as_ref()?;
            is_header(names, &["Date", "open", "high", "low", "close", "tick_volume"])?;
            // 129587.00000000001 is a whole number of points with dust.
            let whole =
                |cell: &String| cell.parse::<f64>().is_ok_and(|x| x.abs() >= 1.0 && (x - libm::round(x)).abs() < 1e-3);
            let fits = head.rows.iter().all(|row| row.get(1..5).is_some_and(|prices| prices.iter().all(whole)));
            (fits && !head.rows.is_empty()).then(|| Layout { in_points: true, ..one(0, [1, 2, 3, 4], Some(5)) })
        }
        Format::Generic => {
            let at = |names: &[&str]| names.iter().find_map(|name| head.find(name));
            let ohlc = [at(&["open"])?, at(&["high"])?, at(&["low"])?, at(&["close"])?];
            let date = at(&["datetime", "timestamp", "date time", "date", "<date>", "time", "utc time"])?;
            let time = at(&["time"]).filter(|time| *time != date);
            let stamp = head.rows.first()?.get(date)?;
            let zone = if head.find("utc time") == Some(date) {
                StatedZone::Named("UTC".to_owned())
            } else if stamp.ends_with(['Z', 'z']) || stamp.get(16..).is_some_and(|end| end.contains(['+', '-'])) {
                StatedZone::InStamps
            } else {
                StatedZone::None(format.missing_zone())
            };
            let volume = at(&["volume", "vol", "tick_volume", "tickvol"]);
            Some(Layout { time, zone, spread: at(&["spread"]), ..one(date, ohlc, volume) })
        }
    }
}

fn is_header(names: &[String], expected: &[&str]) -> Option<()> {
    (names.len() == expected.len() && names.iter().zip(expected).all(|(name, expected)| name == expected)).then_some(())
}

/// The side a file name tells by a word of its own: `EURUSD_Candlestick_1_M_BID_…`, `gbpusd-m1-ask-2012.csv`.
pub(crate) fn named_side(path: &Path) -> Option<Side> {
    let stem = path.file_stem()?.to_string_lossy().to_ascii_lowercase();
    let words: Vec<&str> = stem.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let mut told = [Side::Bid, Side::Ask].into_iter().filter(|side| words.contains(&side.as_str()));
    let first = told.next();
    if told.next().is_some() { None } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format_of(text: &str) -> Result<&'static str, String> {
        let head = Head::read(text);
        detect(Path::new("f.csv"), &head, None).map(|layout| layout.format.as_str()).map_err(|e| e.to_string())
    }

    #[test]
    fn formats_are_told_from_the_first_lines() {
        let cases = [
            ("Gmt time,Open,High,Low,Close,Volume\n01.04.2025 00:00:00.000,1,1,1,1,1\n", "dukascopy-web"),
            ("Time (UTC),Open,High,Low,Close,Volume \r\n29.12.2024 22:00:00,1,1,1,1,1\r\n", "dukascopy-jforex"),
            (
                "<DATE>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n2024.09.18\t1\t1\t1\t1\t4\t0\t1\n",
                "mt5-export",
            ),
            ("time,open,high,low,close,tick_volume,spread,real_volume\n1763010300,1,1,1,1,113,2,0\n", "mt5-python"),
            ("20170301 000000;1.05;1.06;1.04;1.05;0\n", "histdata-m1"),
            ("time,open,high,low,close,Shapes,Shapes\n1585774800,1,1,1,1,0,0\n", "tradingview"),
            ("1637971200000,1,1,1,1,3,1637971259999,1,79,1,0,0\n", "binance-klines"),
            ("1637971200000000,1,1,1,1,3,1637971259999999,1,79,1,0,0\n", "binance-klines"),
            ("Date,Open,High,Low,Close,Volume,Adj Close\n1997-01-02,5,5,5,5,7,1\n", "yahoo"),
            ("20070101 21:00,1,1,1,1,0,1,1,1,1,0\n", "lean-quote"),
            (
                "Date,open,high,low,close,tick_volume\n2012-11-26 20:00:00,129613.0,130053.0,129587.00000000001,129934.0,1\n",
                "points",
            ),
            ("Date,open,high,low,close,tick_volume\n2012-11-26 20:00:00,1.2961,1.3,1.29,1.2993,1\n", "generic"),
            ("Close;Open;High;Low;DateTime\n1;1;1;1;2020-01-01 10:00\n", "generic"),
        ];
        for (text, expected) in cases {
            assert_eq!(format_of(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_bar_or_two_things_is_refused() {
        let refusals = [
            ("{\"a\": 1}", "this is JSON"),
            ("timestamp,bid,ask\n2013-01-01 22:00:00.295000+00:00,86.655,86.728\n", "these are ticks"),
            ("20200101 170000065,1.121200,1.121720,0\n", "these are ticks"),
            ("DateTime,Currency,Impact,Event\n2020-01-02T01:45:00+00:00,CNY,High,PMI\n", "an economic calendar"),
            ("a,b\n1,2\n", "must be of a known format"),
            ("time,open,high,low,close,tick_volume\n1763010300,1,1,1,1,113\n", "mt5-python and tradingview fit"),
        ];
        for (text, expected) in refusals {
            let error = format_of(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn only_a_word_of_its_own_names_the_side() {
        let side = |name: &str| named_side(Path::new(name));
        assert_eq!(side("EURUSD_1 Min_Bid_sample.csv"), Some(Side::Bid));
        assert_eq!(side("gbpusd-m1-ask-2012.csv"), Some(Side::Ask));
        assert_eq!(side("basket.csv"), None);
        assert_eq!(side("eurusd_bid_ask.csv"), None);
    }
}
