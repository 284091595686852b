//! `data import` on genuine files of vendors and on small made ones: values bit for bit, days of daylight saving,
//! aggregation against a plain loop, and every refusal with its reason.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use engine::data::import::{DayStart, Fold, ImportReport, ImportRequest, Side, SourceFile, Spread, import};
use engine::data::{Bars, DataRequest, Quotes, check_pair, load};
use engine::units::Timeframe;
use jiff::Timestamp;

/// The folder of genuine text files.
fn samples(test: &str) -> Option<PathBuf> {
    let folder = support::data_root(test)?.join("raw-samples");
    assert!(folder.is_dir(), "{} is missing", folder.display());
    Some(folder)
}

fn request(root: &Path, symbol: &str, files: &[PathBuf]) -> ImportRequest {
    let files = files.iter().map(|path| SourceFile { path: path.clone(), side: None }).collect();
    ImportRequest { files, root: root.to_owned(), symbol: symbol.to_owned(), ..ImportRequest::default() }
}

fn ns(text: &str) -> i64 {
    i64::try_from(text.parse::<Timestamp>().unwrap().as_nanosecond()).unwrap()
}

fn iso(t: i64) -> String {
    Timestamp::from_nanosecond(i128::from(t)).unwrap().to_string()
}

/// Bars as every run gets them: through the checks and the mapped store, the second time from the mapped file alone.
fn stored(root: &Path, symbol: &str, timeframe: Timeframe) -> Bars {
    let mut sources = support::sources(root);
    sources.parquet_root = root.to_owned();
    let request = DataRequest {
        symbol: symbol.to_owned(),
        primary: timeframe,
        others: Vec::new(),
        start_ns: ns("1990-01-01T00:00:00Z"),
        end_ns: ns("2030-01-01T00:00:00Z"),
        warmup_bars: 0,
        parity: false,
        sessions: Vec::new(),
        synthetic: None,
    };
    let first = load(&request, &sources).unwrap().market.bars;
    let again = load(&request, &sources).unwrap().market.bars;
    assert_eq!(columns(&first), columns(&again));
    again
}

type Column = Vec<u64>;

fn quote_columns(quotes: &Quotes) -> [Column; 5] {
    [&quotes.open, &quotes.high, &quotes.low, &quotes.close, &quotes.volume]
        .map(|column| column.iter().map(|x| x.to_bits()).collect())
}

fn columns(bars: &Bars) -> (Vec<i64>, [Column; 5], [Column; 5]) {
    (bars.open_time.to_vec(), quote_columns(&bars.bid), quote_columns(&bars.ask))
}

/// How this test reads a sample, on its own: separator, header lines, columns of open, high, low, close and volume.
struct Plain {
    separator: char,
    header: usize,
    columns: [usize; 5],
}

/// No volume in the file.
const NONE: usize = usize::MAX;

impl Plain {
    /// One row per line: the cells, and the five numbers by bits.
    fn rows(&self, path: &Path) -> Vec<[u64; 5]> {
        let text = std::fs::read_to_string(path).unwrap();
        let number = |cells: &[&str], column: usize| match column {
            NONE => 0.0_f64.to_bits(),
            column => cells[column].trim().parse::<f64>().unwrap().to_bits(),
        };
        let row = |line: &str| {
            let cells: Vec<&str> = line.split(self.separator).collect();
            self.columns.map(|column| number(&cells, column))
        };
        text.lines().skip(self.header).map(row).collect()
    }
}

/// A sample of bars and the options it needs.
struct Sample {
    /// One file; or the bid file and the ask file.
    files: &'static [&'static str],
    options: fn(&mut ImportRequest),
    timeframe: Timeframe,
    /// Open times of the first and the last bar of the first file.
    extent: [&'static str; 2],
    /// The columns of the bid, and of the ask where it stands in the same row.
    plain: &'static [Plain],
    /// The price of a file with one price.
    side: Side,
}

const COMMA: Plain = Plain { separator: ',', header: 1, columns: [1, 2, 3, 4, 5] };

fn bar_samples() -> Vec<Sample> {
    use Timeframe::{D1, H1, H4, M1, M5};
    vec![
        Sample {
            files: &["dukascopy_web_EURUSD_M1_BID.csv", "dukascopy_web_EURUSD_M1_ASK.csv"],
            options: |_| {},
            timeframe: M1,
            extent: ["2025-04-01T00:00:00Z", "2025-04-03T02:09:00Z"],
            plain: &[COMMA],
            side: Side::Bid,
        },
        Sample {
            files: &["dukascopy_jforex_EURUSD_M1_BID.csv", "dukascopy_jforex_EURUSD_M1_ASK.csv"],
            options: |_| {},
            timeframe: M1,
            extent: ["2024-12-29T22:00:00Z", "2025-01-02T04:03:00Z"],
            plain: &[COMMA],
            side: Side::Bid,
        },
        Sample {
            files: &["histdata_ascii_EURUSD_M1_201703.csv"],
            options: |r| {
                r.zone = Some("America/New_York".to_owned());
                (r.spread, r.pip) = (Some(Spread::Pips(0.8)), Some(0.0001));
            },
            timeframe: M1,
            extent: ["2017-03-01T05:00:00Z", "2017-03-03T15:39:00Z"],
            plain: &[Plain { separator: ';', header: 0, ..COMMA }],
            side: Side::Bid,
        },
        Sample {
            files: &["mt5_export_EURAUD_H4.csv"],
            options: |r| {
                r.zone = Some("America/New_York+7".to_owned());
                (r.spread, r.point) = (Some(Spread::Column), Some(0.00001));
            },
            timeframe: H4,
            extent: ["2020-01-01T22:00:00Z", "2021-11-23T22:00:00Z"],
            plain: &[Plain { separator: '\t', header: 1, columns: [2, 3, 4, 5, 6] }],
            side: Side::Bid,
        },
        Sample {
            files: &["mt5_export_EURUSD_daily.csv"],
            options: |r| {
                r.zone = Some("EET".to_owned());
                (r.spread, r.point) = (Some(Spread::Column), Some(0.00001));
            },
            timeframe: D1,
            extent: ["2024-09-17T21:00:00Z", "2025-05-31T21:00:00Z"],
            plain: &[Plain { separator: '\t', header: 1, columns: [1, 2, 3, 4, 5] }],
            side: Side::Bid,
        },
        Sample {
            files: &["mt5_python_EURUSD_M5.csv"],
            options: |r| {
                r.zone = Some("+02:00".to_owned());
                (r.spread, r.point) = (Some(Spread::Column), Some(0.00001));
            },
            timeframe: M5,
            extent: ["2025-11-13T03:05:00Z", "2025-11-28T12:10:00Z"],
            plain: &[Plain { separator: ',', header: 1, columns: [2, 3, 4, 5, 6] }],
            side: Side::Bid,
        },
        Sample {
            files: &["tradingview_export_FX_EURUSD_1D.csv"],
            options: |r| (r.side, r.spread) = (Some(Side::Mid), Some(Spread::Price(0.0))),
            timeframe: D1,
            extent: ["2020-04-01T21:00:00Z", "2025-02-26T22:00:00Z"],
            plain: &[Plain { separator: ',', header: 1, columns: [1, 2, 3, 4, NONE] }],
            side: Side::Mid,
        },
        Sample {
            files: &["binance_klines_NEARUSDT_1m_header.csv"],
            options: |r| r.spread = Some(Spread::Price(0.0)),
            timeframe: M1,
            extent: ["2023-05-01T00:00:00Z", "2023-05-02T00:59:00Z"],
            plain: &[COMMA],
            side: Side::Last,
        },
        Sample {
            files: &["binance_klines_ADABTC_1m_noheader.csv"],
            options: |r| r.spread = Some(Spread::Price(0.0)),
            timeframe: M1,
            extent: ["2021-11-27T00:00:00Z", "2021-11-27T00:09:00Z"],
            plain: &[Plain { header: 0, ..COMMA }],
            side: Side::Last,
        },
        Sample {
            files: &["yahoo_YHOO_daily_2014.csv"],
            options: |r| (r.zone, r.spread) = (Some("UTC".to_owned()), Some(Spread::Price(0.0))),
            timeframe: D1,
            extent: ["2014-01-02T00:00:00Z", "2014-12-31T00:00:00Z"],
            plain: &[Plain { separator: ',', header: 1, columns: [1, 2, 3, 4, 6] }],
            side: Side::Last,
        },
        Sample {
            files: &["yahoo_KO_daily_old.csv"],
            options: |r| (r.zone, r.spread) = (Some("UTC".to_owned()), Some(Spread::Price(0.0))),
            timeframe: D1,
            extent: ["1997-01-02T00:00:00Z", "1998-06-01T00:00:00Z"],
            plain: &[COMMA],
            side: Side::Last,
        },
        Sample {
            files: &["generic_index_daily_2006.csv"],
            options: |r| {
                (r.zone, r.side, r.spread) = (Some("UTC".to_owned()), Some(Side::Last), Some(Spread::Price(0.0)));
            },
            timeframe: D1,
            extent: ["2006-01-02T00:00:00Z", "2006-12-29T00:00:00Z"],
            plain: &[COMMA],
            side: Side::Last,
        },
        Sample {
            files: &["lean_quote_EURUSD_H1.csv"],
            options: |r| r.zone = Some("UTC".to_owned()),
            timeframe: H1,
            extent: ["2007-01-01T21:00:00Z", "2007-04-30T01:00:00Z"],
            plain: &[Plain { header: 0, ..COMMA }, Plain { separator: ',', header: 0, columns: [6, 7, 8, 9, 10] }],
            side: Side::Bid,
        },
    ]
}

/// Every value of the text is in the store, bit for bit; the file passes `data check`.
#[test]
fn bars_keep_every_bit_on_their_way_into_the_store() {
    let Some(folder) = samples("bars_keep_every_bit_on_their_way_into_the_store") else { return };
    for sample in bar_samples() {
        let root = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = sample.files.iter().map(|file| folder.join(file)).collect();
        let mut asked = request(root.path(), "SAMPLE", &files);
        (sample.options)(&mut asked);
        let report = import(&asked).unwrap_or_else(|error| panic!("{:?}: {error}", sample.files));
        assert_eq!(report.series.len(), 1);
        check_pair(root.path(), "SAMPLE", sample.timeframe).unwrap();
        let bars = stored(root.path(), "SAMPLE", sample.timeframe);
        let rows = |quotes: &Quotes| -> Vec<[u64; 5]> {
            let columns = quote_columns(quotes);
            (0..bars.len()).map(|i| [0, 1, 2, 3, 4].map(|c: usize| columns[c][i])).collect()
        };
        let (bid, ask) = (rows(&bars.bid), rows(&bars.ask));
        let record = &report.series[0].record;
        let name = sample.files[0];
        assert_eq!(iso(bars.open_time[0]), sample.extent[0], "{name}");
        if sample.files.len() == 2 {
            // The two files were cut at different minutes: what one of them lacks is not aligned.
            let [bid_text, ask_text] = [0, 1].map(|i: usize| sample.plain[0].rows(&files[i]));
            assert_eq!((record.bid_rows, record.ask_rows), (bid_text.len(), ask_text.len()));
            for (text, stored) in [(bid_text, &bid), (ask_text, &ask)] {
                let text: BTreeMap<[u64; 5], usize> = count(&text);
                assert!(count(stored).iter().all(|(row, n)| text.get(row).is_some_and(|m| n <= m)), "{name}");
            }
            let minutes = (ns(sample.extent[1]) - bars.open_time[0]) / 60_000_000_000;
            assert!(bars.len() as i64 <= minutes + 1 && record.made_side.is_none());
            continue;
        }
        assert_eq!(iso(bars.open_time[bars.len() - 1]), sample.extent[1], "{name}");
        let first = sample.plain[0].rows(&files[0]);
        match (sample.plain, sample.side) {
            ([_, second], _) => assert!(bid == first && ask == second.rows(&files[0]), "{name}"),
            (_, Side::Bid) => assert!(bid == first && record.made_side.as_deref() == Some("ask"), "{name}"),
            // Without a spread both sides are the price itself.
            _ => assert!(bid == first && ask == first && record.made_side.as_deref() == Some("bid and ask"), "{name}"),
        }
    }
}

fn count(rows: &[[u64; 5]]) -> BTreeMap<[u64; 5], usize> {
    let mut counts = BTreeMap::new();
    rows.iter().for_each(|row| *counts.entry(*row).or_default() += 1);
    counts
}

/// Samples whose numbers need more than reading: ten minutes, whole points, opens outside the range, crossed rows.
#[test]
fn samples_with_a_quirk_import_with_the_option_that_settles_it() {
    let Some(folder) = samples("samples_with_a_quirk_import_with_the_option_that_settles_it") else { return };
    let root = tempfile::tempdir().unwrap();
    let files = |names: &[&str]| names.iter().map(|name| folder.join(name)).collect::<Vec<_>>();

    // Dukascopy, 10 minutes: no candle file of the contract, but whole half hours.
    let ten = files(&["dukascopy_jforex_EURUSD_M10_BID.csv", "dukascopy_jforex_EURUSD_M10_ASK.csv"]);
    let mut asked = request(root.path(), "TEN", &ten);
    assert!(import(&asked).unwrap_err().to_string().contains("found bars of M10"));
    asked.aggregate = vec![Timeframe::M15];
    assert!(import(&asked).unwrap_err().to_string().contains("M15 cannot be made of bars of M10"));
    asked.aggregate = vec![Timeframe::M30, Timeframe::H1];
    let report = import(&asked).unwrap();
    assert_eq!(report.series.iter().map(|s| s.timeframe).collect::<Vec<_>>(), [Timeframe::M30, Timeframe::H1]);

    // Whole points with dust become the decimals that were quoted.
    let mut asked = request(root.path(), "POINTS", &files(&["points_EURUSD_H4.csv"]));
    (asked.zone, asked.side, asked.spread) = (Some("EET".into()), Some(Side::Bid), Some(Spread::Pips(1.0)));
    (asked.pip, asked.point) = (Some(0.0001), Some(0.00001));
    import(&asked).unwrap();
    let bars = stored(root.path(), "POINTS", Timeframe::H4);
    assert_eq!((bars.bid.open[0], bars.bid.low[0], bars.bid.close[1]), (1.29613, 1.29587, 1.29815));
    assert_eq!((bars.ask.open[0], bars.ask.low[0]), (1.29623, 1.29597));
    assert_eq!(bars.len(), 1999);

    // FXCM's opens are the closes of the bar before and may lie outside of the range.
    let mut asked = request(root.path(), "FXCM", &files(&["fxcm_candles_EURUSD_H1.csv"]));
    asked.zone = Some("UTC".into());
    let error = import(&asked).unwrap_err();
    assert!(error.to_string().contains("H1.csv:96: Low <= Open, Close <= High, found Open 1.05308, High 1.05288"));
    assert!(error.hint().unwrap().contains("--widen-range"));
    asked.widen_range = true;
    let report = import(&asked).unwrap();
    // 32 bid bars and 26 ask bars, counted with awk.
    assert_eq!(report.series[0].record.ranges_widened, 58);
    let bars = stored(root.path(), "FXCM", Timeframe::H1);
    assert_eq!((bars.bid.open[94], bars.bid.high[94], bars.bid.low[94]), (1.05308, 1.05308, 1.05263));
    assert_eq!((bars.bid.close[0], bars.ask.close[0], bars.len()), (1.0465, 1.04674, 1199));

    // FXCM minutes: 44 of 3275 rows are crossed.
    let minutes = files(&["fxcm_m1_GBPUSD_bid.csv", "fxcm_m1_GBPUSD_ask.csv"]);
    let mut asked = request(root.path(), "GBPUSD", &minutes);
    let error = import(&asked).unwrap_err().to_string();
    assert!(
        error.contains("bid.csv:526: the ask must not lie below the bid") && error.contains("ask.csv:526"),
        "{error}"
    );
    assert!(!root.path().join("GBPUSD").exists());
    asked.drop_crossed = true;
    let report = import(&asked).unwrap();
    assert_eq!((report.series[0].record.crossed_dropped, report.series[0].record.bid_rows), (44, 3231));
    check_pair(root.path(), "GBPUSD", Timeframe::M1).unwrap();
}

/// What is not bars, and what states no zone.
const REFUSED: [(&str, &str); 14] = [
    ("histdata_ascii_EURUSD_ticks.csv", "these are ticks"),
    ("truefx_USDJPY_ticks.csv", "these are ticks"),
    ("forexfactory_calendar_high_impact.csv", "this is an economic calendar"),
    ("forexfactory_calendar_day.json", "this is JSON"),
    ("histdata_ascii_EURUSD_M1_201703.csv", "found none: HistData documents EST without daylight saving"),
    ("mt5_export_EURAUD_H4.csv", "found none: MetaTrader 5 stamps bars with the clock of the broker's server"),
    ("mt5_export_EURUSD_daily.csv", "found none: MetaTrader 5 stamps bars with the clock of the broker's server"),
    ("mt5_python_EURUSD_M5.csv", "found none: MetaTrader 5 stamps bars with the clock of the broker's server"),
    ("yahoo_YHOO_daily_2014.csv", "found none: the file holds trading dates of an exchange without a zone"),
    ("yahoo_KO_daily_old.csv", "found none: the file holds trading dates of an exchange without a zone"),
    ("points_EURUSD_H4.csv", "found none: the file does not state its zone"),
    ("generic_index_daily_2006.csv", "found none: the file does not state its zone"),
    ("fxcm_candles_EURUSD_H1.csv", "found none: the file does not state its zone"),
    ("lean_quote_EURUSD_H1.csv", "found none: Lean files carry no zone"),
];

#[test]
fn what_is_not_bars_or_states_no_zone_is_refused_with_its_reason() {
    let Some(folder) = samples("what_is_not_bars_or_states_no_zone_is_refused_with_its_reason") else { return };
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    for (file, reason) in REFUSED {
        let mut asked = request(&out, "X", &[folder.join(file)]);
        // Everything else is stated.
        (asked.spread, asked.point) = (Some(Spread::Price(0.0)), Some(0.00001));
        let error = import(&asked).unwrap_err();
        assert!(error.to_string().contains(reason), "{file}: {error}");
        assert_eq!(error.code(), "E4107");
        assert_eq!(reason.starts_with("found none"), error.hint().is_some_and(|hint| hint.contains("--tz")), "{file}");
    }
    assert!(!out.exists(), "a refusal writes nothing");
}

#[test]
fn every_sample_has_a_test() {
    let Some(folder) = samples("every_sample_has_a_test") else { return };
    let mut tested: BTreeSet<String> = REFUSED.iter().map(|(file, _)| (*file).to_owned()).collect();
    tested.extend(bar_samples().iter().flat_map(|sample| sample.files).map(|file| (*file).to_owned()));
    let quirks = ["dukascopy_jforex_EURUSD_M10_BID.csv", "dukascopy_jforex_EURUSD_M10_ASK.csv"];
    tested.extend(quirks.map(str::to_owned));
    tested.extend(["fxcm_m1_GBPUSD_bid.csv", "fxcm_m1_GBPUSD_ask.csv"].map(str::to_owned));
    let there: BTreeSet<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, tested);
}

/// A file of M1 or H1 bars, comma separated, of the generic format.
fn write_generic(path: &Path, stamps: &[&str]) {
    let mut text = String::from("Date,Open,High,Low,Close,Volume\n");
    for (i, stamp) in stamps.iter().enumerate() {
        text.push_str(&format!("{stamp},1.1,1.2,1.0,1.1{i},1\n"));
    }
    std::fs::write(path, text).unwrap();
}

fn import_generic(stamps: &[&str], options: impl Fn(&mut ImportRequest)) -> engine::Result<(ImportReport, Bars)> {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("x_bid.csv");
    write_generic(&file, stamps);
    let mut asked = request(root.path(), "X", &[file]);
    (asked.spread, asked.timeframe) = (Some(Spread::Price(0.0001)), Some("H1".to_owned()));
    options(&mut asked);
    let report = import(&asked)?;
    let bars = check_pair(root.path(), "X", report.series[0].timeframe)?.bars;
    Ok((report, bars))
}

fn open_times(bars: &Bars) -> Vec<String> {
    bars.open_time.iter().map(|&t| iso(t)).collect()
}

/// New York put the clock forward on 2017-03-12 at 2:00 and back on 2017-11-05 at 2:00.
#[test]
fn clocks_that_are_changed() {
    let new_york = |r: &mut ImportRequest| r.zone = Some("America/New_York".to_owned());
    let (_, bars) =
        import_generic(&["2017-03-12 00:00", "2017-03-12 01:00", "2017-03-12 03:00", "2017-03-12 04:00"], new_york)
            .unwrap();
    let expected = ["2017-03-12T05:00:00Z", "2017-03-12T06:00:00Z", "2017-03-12T07:00:00Z", "2017-03-12T08:00:00Z"];
    assert_eq!(open_times(&bars), expected);

    let error = import_generic(&["2017-03-12 01:00", "2017-03-12 02:00", "2017-03-12 03:00"], new_york).unwrap_err();
    assert!(
        error.to_string().contains("x_bid.csv:3: the clock of America/New_York must have shown this time"),
        "{error}"
    );

    // Both passes of the hour are there: the step back tells them apart.
    let both = ["2017-11-05 00:00", "2017-11-05 01:00", "2017-11-05 01:00", "2017-11-05 02:00"];
    let (_, bars) = import_generic(&both, new_york).unwrap();
    let expected = ["2017-11-05T04:00:00Z", "2017-11-05T05:00:00Z", "2017-11-05T06:00:00Z", "2017-11-05T07:00:00Z"];
    assert_eq!(open_times(&bars), expected);

    let halves = ["2017-11-05 01:00", "2017-11-05 01:30", "2017-11-05 01:00", "2017-11-05 01:30", "2017-11-05 02:00"];
    let (_, bars) = import_generic(&halves, |r| {
        new_york(r);
        r.timeframe = Some("M30".to_owned());
    })
    .unwrap();
    assert_eq!(open_times(&bars)[1..3], ["2017-11-05T05:30:00Z", "2017-11-05T06:00:00Z"]);

    // One pass only: which one, nothing tells.
    let one = ["2017-11-05 00:00", "2017-11-05 01:00", "2017-11-05 02:00"];
    let error = import_generic(&one, new_york).unwrap_err();
    assert!(error.to_string().contains("x_bid.csv:3: the clock showed this time twice"), "{error}");
    assert_eq!(error.hint().as_deref(), Some("--fold earlier or --fold later"));
    for (fold, expected) in [(Fold::Earlier, "2017-11-05T05:00:00Z"), (Fold::Later, "2017-11-05T06:00:00Z")] {
        let with = |r: &mut ImportRequest| {
            new_york(r);
            r.fold = Some(fold);
        };
        assert_eq!(open_times(&import_generic(&one, with).unwrap().1)[1], expected);
    }

    // A clock without daylight saving has neither.
    let (_, bars) = import_generic(&one, |r| r.zone = Some("EST".to_owned())).unwrap();
    assert_eq!(open_times(&bars)[1], "2017-11-05T06:00:00Z");
}

#[test]
fn day_and_month_must_be_proved_or_stated() {
    let utc = |r: &mut ImportRequest| r.zone = Some("UTC".to_owned());
    let proved = import_generic(&["12/03/2017 22:00", "12/03/2017 23:00", "13/03/2017 00:00"], utc).unwrap().1;
    assert_eq!(open_times(&proved)[0], "2017-03-12T22:00:00Z");
    let unclear = ["03/04/2017 22:00", "03/04/2017 23:00"];
    let error = import_generic(&unclear, utc).unwrap_err();
    assert!(error.to_string().contains("x_bid.csv:2: the order of day and month must be clear"), "{error}");
    let stated = |r: &mut ImportRequest| {
        utc(r);
        r.date_order = Some(engine::data::import::DateOrder::Mdy);
    };
    assert_eq!(open_times(&import_generic(&unclear, stated).unwrap().1)[0], "2017-03-04T22:00:00Z");
    let both = import_generic(&["13/04/2017", "04/13/2017"], utc).unwrap_err();
    assert!(both.to_string().contains("one order of day and month must hold"), "{both}");
}

#[test]
fn newest_first_is_turned_round_and_other_disorder_refused() {
    let utc = |r: &mut ImportRequest| r.zone = Some("UTC".to_owned());
    let (_, bars) = import_generic(&["2017-01-02 02:00", "2017-01-02 01:00", "2017-01-02 00:00"], utc).unwrap();
    assert_eq!(open_times(&bars)[0], "2017-01-02T00:00:00Z");
    assert_eq!(bars.bid.close.to_vec(), [1.12, 1.11, 1.10]);
    let error = import_generic(&["2017-01-02 00:00", "2017-01-02 02:00", "2017-01-02 01:00"], utc).unwrap_err();
    assert!(error.to_string().contains("x_bid.csv:4: stamps must not decrease in file order"), "{error}");
}

/// The side that is made, for each side that is given.
#[test]
fn the_missing_side_is_made_from_the_given_one() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("x.csv");
    std::fs::write(&file, "Date,Open,High,Low,Close,Volume\n2017-01-02,1.05522,1.05530,1.05521,1.05529,3\n").unwrap();
    for (side, bid, ask, how) in [
        (Side::Bid, 1.05522, 1.0553, "bid + 0.00008 (0.8 pips of 0.0001)"),
        (Side::Ask, 1.05514, 1.05522, "ask - 0.00008 (0.8 pips of 0.0001)"),
        (Side::Mid, 1.05518, 1.05526, "mid -/+ half of 0.00008 (0.8 pips of 0.0001)"),
        (Side::Last, 1.05518, 1.05526, "last -/+ half of 0.00008 (0.8 pips of 0.0001)"),
    ] {
        let mut asked = request(root.path(), "X", std::slice::from_ref(&file));
        (asked.side, asked.zone, asked.timeframe) = (Some(side), Some("UTC".into()), Some("D1".into()));
        (asked.spread, asked.pip, asked.force) = (Some(Spread::Pips(0.8)), Some(0.0001), true);
        let report = import(&asked).unwrap();
        let checked = check_pair(root.path(), "X", Timeframe::D1).unwrap();
        // Exact: what is made is the double next to the decimal.
        assert_eq!((checked.bars.bid.open[0], checked.bars.ask.open[0]), (bid, ask), "{side:?}");
        assert_eq!(report.series[0].record.made_how.as_deref(), Some(how));
        let made: Vec<bool> = checked.inputs.iter().map(|input| input.made.is_some()).collect();
        assert_eq!(made, [side != Side::Bid, side != Side::Ask]);
        assert!(checked.warnings.iter().any(|warning| warning.contains(how)), "{:?}", checked.warnings);
    }
    // The record speaks only of the files it was written for.
    let record = root.path().join("X/import.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let stale = text.replacen("_sha256\": \"", "_sha256\": \"0", 1);
    std::fs::write(&record, stale).unwrap();
    assert!(check_pair(root.path(), "X", Timeframe::D1).unwrap().inputs.iter().all(|input| input.made.is_none()));
}

/// Months in any order and with an overlap become one series.
#[test]
fn files_of_one_series_are_joined() {
    let root = tempfile::tempdir().unwrap();
    let (first, second) = (root.path().join("a_bid.csv"), root.path().join("b_bid.csv"));
    let header = "Date,Open,High,Low,Close,Volume\n";
    let row = |hour: usize| format!("2017-01-02 0{hour}:00,1.1,1.2,1.0,1.1{hour},1\n");
    let rows = |hours: std::ops::Range<usize>| hours.map(row).collect::<String>();
    std::fs::write(&first, format!("{header}{}", rows(0..5))).unwrap();
    std::fs::write(&second, format!("{header}{}", rows(4..9))).unwrap();
    let mut asked = request(root.path(), "X", &[second.clone(), first.clone()]);
    (asked.zone, asked.spread) = (Some("UTC".into()), Some(Spread::Price(0.0)));
    let report = import(&asked).unwrap();
    assert_eq!((report.series[0].record.duplicates_dropped, report.series[0].record.bid_rows), (1, 9));

    // A row that differs is refused with its file and line; what is there stays as it was.
    std::fs::write(&second, format!("{header}{}", rows(4..9).replace("1.14,", "1.15,"))).unwrap();
    asked.force = true;
    let before = std::fs::read(root.path().join("X/X_H1_BID.parquet")).unwrap();
    let error = import(&asked).unwrap_err().to_string();
    assert!(error.contains("rows of one stamp must be equal") && error.contains(".csv:"), "{error}");
    assert_eq!(std::fs::read(root.path().join("X/X_H1_BID.parquet")).unwrap(), before);

    asked.force = false;
    let error = import(&asked).unwrap_err();
    assert!(error.to_string().contains("a candle file must not be overwritten"), "{error}");
    assert!(
        std::fs::read_dir(root.path()).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().starts_with('.'))
    );
}

/// A row of one side: open, high, low, close, volume by their bits.
type Bar = (i64, [u64; 5]);

/// Aggregation as anyone would write it: bins by a function, a map from bin to its rows.
fn plainly(bars: &Bars, quotes: &Quotes, bin: impl Fn(i64) -> i64) -> Vec<Bar> {
    let mut bins: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    (0..bars.len()).for_each(|i| bins.entry(bin(bars.open_time[i])).or_default().push(i));
    bins.into_iter()
        .map(|(start, rows)| {
            let (first, last) = (rows[0], rows[rows.len() - 1]);
            let high = rows.iter().map(|&i| quotes.high[i]).fold(f64::NEG_INFINITY, f64::max);
            let low = rows.iter().map(|&i| quotes.low[i]).fold(f64::INFINITY, f64::min);
            let volume = rows.iter().skip(1).fold(quotes.volume[first], |sum, &i| sum + quotes.volume[i]);
            (start, [quotes.open[first], high, low, quotes.close[last], volume].map(f64::to_bits))
        })
        .collect()
}

fn as_rows(bars: &Bars, quotes: &Quotes) -> Vec<Bar> {
    let columns = quote_columns(quotes);
    (0..bars.len()).map(|i| (bars.open_time[i], [0, 1, 2, 3, 4].map(|c: usize| columns[c][i]))).collect()
}

const HOUR: i64 = 3_600_000_000_000;

#[test]
fn longer_bars_agree_with_a_plain_loop() {
    let Some(folder) = samples("longer_bars_agree_with_a_plain_loop") else { return };
    let root = tempfile::tempdir().unwrap();
    // Minutes of a UTC day.
    let minutes = ["dukascopy_web_EURUSD_M1_BID.csv", "dukascopy_web_EURUSD_M1_ASK.csv"].map(|f| folder.join(f));
    let mut asked = request(root.path(), "EURUSD", &minutes);
    asked.aggregate = vec![Timeframe::M5, Timeframe::M15, Timeframe::M30, Timeframe::H1, Timeframe::H4, Timeframe::D1];
    assert_eq!(import(&asked).unwrap().series.len(), 7);
    let base = stored(root.path(), "EURUSD", Timeframe::M1);
    for &timeframe in &asked.aggregate {
        let made = stored(root.path(), "EURUSD", timeframe);
        let bin = |t: i64| t.div_euclid(timeframe.duration_ns()) * timeframe.duration_ns();
        assert_eq!(as_rows(&made, &made.bid), plainly(&base, &base.bid, bin), "{timeframe}");
        assert_eq!(as_rows(&made, &made.ask), plainly(&base, &base.ask, bin), "{timeframe}");
    }

    // Hours of 2007 with days from 17:00 New York; the clock went forward on 2007-03-11 at 07:00 UTC.
    let mut asked = request(root.path(), "LEAN", &[folder.join("lean_quote_EURUSD_H1.csv")]);
    (asked.zone, asked.day) = (Some("UTC".into()), DayStart::NewYork17);
    asked.aggregate = vec![Timeframe::H4, Timeframe::D1];
    import(&asked).unwrap();
    let base = stored(root.path(), "LEAN", Timeframe::H1);
    let change = ns("2007-03-11T07:00:00Z");
    for timeframe in [Timeframe::H4, Timeframe::D1] {
        let made = stored(root.path(), "LEAN", timeframe);
        let step = timeframe.duration_ns();
        let bin = |t: i64| {
            // Hours behind UTC, and from 17:00 to midnight.
            let behind = |t: i64| if t < change { 5 } else { 4 };
            let start = (t - behind(t) * HOUR + 7 * HOUR).div_euclid(step) * step - 7 * HOUR;
            // The offset at the start of the bin may be another one.
            let winter = start + 5 * HOUR;
            if winter < change { winter } else { start + 4 * HOUR }
        };
        assert_eq!(as_rows(&made, &made.bid), plainly(&base, &base.bid, bin), "{timeframe}");
        assert_eq!(as_rows(&made, &made.ask), plainly(&base, &base.ask, bin), "{timeframe}");
    }
    // The Friday before the change opened on Thursday 22:00 UTC, the Monday after it on Sunday 21:00.
    let days = open_times(&stored(root.path(), "LEAN", Timeframe::D1));
    let has = |day: &str| days.iter().any(|found| found == day);
    assert!(has("2007-03-08T22:00:00Z") && has("2007-03-11T21:00:00Z") && !has("2007-03-11T22:00:00Z"));

    // Four-hour bars of a UTC day reach across 17:00 New York.
    let mut asked = request(root.path(), "H4", &[folder.join("points_EURUSD_H4.csv")]);
    (asked.zone, asked.side, asked.spread) = (Some("UTC".into()), Some(Side::Bid), Some(Spread::Price(0.0)));
    (asked.point, asked.day, asked.aggregate) = (Some(0.00001), DayStart::NewYork17, vec![Timeframe::D1]);
    let error = import(&asked).unwrap_err().to_string();
    assert!(error.contains("every bar must lie inside one D1 bar"), "{error}");
    assert!(!root.path().join("H4").exists());
}

/// Small files in the current folder of the command, so that messages name no machine.
fn command_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let rows = |stamps: &[&str]| {
        let row = |stamp: &&str| format!("{stamp},1.1,1.2,1.0,1.15,1\n");
        format!("Date,Open,High,Low,Close,Volume\n{}", stamps.iter().map(row).collect::<String>())
    };
    let hours = ["00:00", "01:00", "02:00", "03:00", "04:00"].map(|hour| format!("2017-01-02 {hour}"));
    let plain = rows(&hours.each_ref().map(String::as_str));
    let files = [
        ("plain.csv", plain.clone()),
        ("EURUSD_ASK.csv", plain.clone()),
        ("price.csv", plain.replacen("1.15", "n/a", 2).replacen("n/a", "1.15", 1)),
        ("cut.csv", format!("{}\n", &plain[..plain.len() - 9])),
        ("days.csv", rows(&["03/04/2017", "04/04/2017"])),
        ("short.csv", rows(&["2017-01-02 00:00", "2017-01-02 01:00"])),
        ("two.csv", "time,open,high,low,close,tick_volume\n1763010300,1,1,1,1,113\n".to_owned()),
    ];
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// What the user sees: arguments, stdout, stderr, exit code.
fn run(folder: &Path, arguments: &str) -> String {
    let mut command = assert_cmd::Command::cargo_bin("omega-opt").unwrap();
    command.current_dir(folder).env_clear().args(arguments.split(' '));
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let code = output.status.code().unwrap();
    format!("$ {arguments}\n{}{}[exit {code}]\n", text(&output.stdout), text(&output.stderr))
}

#[test]
fn ambiguity_is_refused_with_the_option_that_settles_it() {
    let folder = command_folder();
    let cases = [
        "two.csv",
        "plain.csv",
        "plain.csv --tz America/NewYork",
        "plain.csv --tz UTC",
        "plain.csv --tz UTC --side bid",
        "plain.csv --tz UTC --side bid --spread 0.8pips",
        "plain.csv --tz UTC --side bid --spread-column",
        "days.csv --tz UTC",
        "short.csv --tz UTC --side bid",
        "plain.csv --tz UTC --side bid --timeframe M5",
        "EURUSD_ASK.csv --tz UTC --side bid",
        "price.csv --tz UTC --side bid",
        "cut.csv --tz UTC --side bid",
        "plain.csv --format yahoo",
        "plain.csv --format dukascopy",
    ];
    let told = cases.map(|case| run(folder.path(), &format!("data import --symbol EURUSD --out bars {case}")));
    let told = told.join("\n").replace("data import --symbol EURUSD --out bars ", "");
    assert!(!folder.path().join("bars").exists(), "a refusal writes nothing");
    insta::assert_snapshot!(told, @r"
    $ two.csv
    error[E4107]: two.csv:1: must be of one format; mt5-python and tradingview fit, found `time,open,high,low,close,tick_volume`
    help: --format mt5-python or --format tradingview
    [exit 3]

    $ plain.csv
    error[E4107]: plain.csv: the time zone of the stamps must be stated, found none: the file does not state its zone
    help: --tz UTC, --tz +02:00, --tz EST, --tz America/New_York, or --tz America/New_York+7 for a server clock whose midnight is the New York close
    [exit 3]

    $ plain.csv --tz America/NewYork
    error[E4002]: --tz: must be UTC, EST, an offset like +02:00, or a name like America/New_York, got `America/NewYork`; did you mean America/New_York?
    [exit 2]

    $ plain.csv --tz UTC
    error[E4107]: plain.csv: the side of the prices must be stated, found none in the format, the content or the file name
    help: --side bid|ask|mid|last, or --bid FILE and --ask FILE
    [exit 3]

    $ plain.csv --tz UTC --side bid
    error[E4107]: plain.csv: bars of one price need a spread for the other side, found only bid prices, no spread column
    help: --spread 0.8pips, --spread 0.00008, or --spread-column with --point where the file has one
    [exit 3]

    $ plain.csv --tz UTC --side bid --spread 0.8pips
    error[E4002]: --pip: must state the size of a pip for this spread
    [exit 2]

    $ plain.csv --tz UTC --side bid --spread-column
    error[E4002]: --spread-column: needs a spread column in every file, and one has none
    [exit 2]

    $ days.csv --tz UTC
    error[E4107]: days.csv:2: the order of day and month must be clear; no part of any date is above 12, found `03/04/2017`
    help: --date-order dmy or --date-order mdy
    [exit 3]

    $ short.csv --tz UTC --side bid
    error[E4107]: short.csv: the length of a bar must be told by the steps between the stamps, found 2 rows without a step that most of them have
    help: --timeframe M1, H1, D1, …
    [exit 3]

    $ plain.csv --tz UTC --side bid --timeframe M5
    error[E4107]: plain.csv: --timeframe M5 must be the step between the bars, found a step of H1
    help: leave --timeframe out
    [exit 3]

    $ EURUSD_ASK.csv --tz UTC --side bid
    error[E4107]: EURUSD_ASK.csv: --side must agree with the file name, which says ask, found --side bid
    help: leave --side out, or rename the file
    [exit 3]

    $ price.csv --tz UTC --side bid
    error[E4107]: price.csv:3: a price must be a finite number, found `n/a` in column 5
    [exit 3]

    $ cut.csv --tz UTC --side bid
    error[E4107]: cut.csv:6: every row must have 6 columns, like the first, found 4 columns
    [exit 3]

    $ plain.csv --format yahoo
    error[E4107]: plain.csv:1: must be of the format yahoo as --format says, found `Date,Open,High,Low,Close,Volume`
    help: --format is one of dukascopy-web, dukascopy-jforex, mt5-export, mt5-python, histdata-m1, tradingview, binance-klines, yahoo, fxcm-candles, fxcm-m1, lean-quote, points, generic
    [exit 3]

    $ plain.csv --format dukascopy
    error: invalid value 'dukascopy' for '--format <NAME>': one of dukascopy-web, dukascopy-jforex, mt5-export, mt5-python, histdata-m1, tradingview, binance-klines, yahoo, fxcm-candles, fxcm-m1, lean-quote, points, generic; did you mean dukascopy-web?

    For more information, try '--help'.
    [exit 2]
    ");
}

#[test]
fn a_side_that_is_made_is_told_everywhere() {
    let folder = command_folder();
    let import = "data import plain.csv --symbol eurusd --out bars --tz UTC --side bid --spread 0.8pips --pip 0.0001 --aggregate H4";
    let mut told =
        [import, import, "data check bars", "data info bars"].map(|line| run(folder.path(), line)).join("\n");
    // Hashes follow the version of the Parquet writer.
    for pair in [Timeframe::H1, Timeframe::H4].map(|tf| check_pair(&folder.path().join("bars"), "EURUSD", tf).unwrap())
    {
        for input in pair.inputs {
            told = told.replace(&input.sha256[..12], "[sha-256]   ");
        }
    }
    insta::assert_snapshot!(told, @r"
    $ data import plain.csv --symbol eurusd --out bars --tz UTC --side bid --spread 0.8pips --pip 0.0001 --aggregate H4
     symbol  tf  bid bars  ask bars  first                 last                  not quoted                                aggregated from
     EURUSD  H1  5         5         2017-01-02T00:00:00Z  2017-01-02T04:00:00Z  ask = bid + 0.00008 (0.8 pips of 0.0001)  –
     EURUSD  H4  2         2         2017-01-02T00:00:00Z  2017-01-02T04:00:00Z  ask = bid + 0.00008 (0.8 pips of 0.0001)  H1
    warning: EURUSD: ask made, not quoted: bid + 0.00008 (0.8 pips of 0.0001)
    [exit 0]

    $ data import plain.csv --symbol eurusd --out bars --tz UTC --side bid --spread 0.8pips --pip 0.0001 --aggregate H4
    error[E4107]: bars/EURUSD/EURUSD_H1_BID.parquet: a candle file must not be overwritten, found one of this name
    help: --force replaces it; --out may name another folder
    [exit 3]

    $ data check bars
     pair       rows  one-sided  duplicates  gap loss  filler  verdict
     EURUSD/H1  5     0          0           0.00 %    0       ok, with warnings
     EURUSD/H4  2     0          0           0.00 %    0       ok, with warnings
    warning: EURUSD H1: bid and ask were not both quoted; imported as bid + 0.00008 (0.8 pips of 0.0001)
    warning: EURUSD H4: bid and ask were not both quoted; imported as bid + 0.00008 (0.8 pips of 0.0001)
    [exit 0]

    $ data info bars
     symbol  tf  rows  first                 last                  median spread  gap loss  sha256 bid    sha256 ask    not quoted
     EURUSD  H1  5     2017-01-02T00:00:00Z  2017-01-02T04:00:00Z  0.00008        0.00 %    [sha-256]     [sha-256]     ask = bid + 0.00008 (0.8 pips of 0.0001)
     EURUSD  H4  2     2017-01-02T00:00:00Z  2017-01-02T04:00:00Z  0.00008        0.00 %    [sha-256]     [sha-256]     ask = bid + 0.00008 (0.8 pips of 0.0001)
    [exit 0]
    ");
}
