//! Made-up market data in memory.
