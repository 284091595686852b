//! Many backtests, judged.
