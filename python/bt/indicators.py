"""Every indicator as a function on arrays, for cross-checks and research.

The functions are those a backtest calls. Inputs are anything ``numpy.asarray`` takes; one contiguous float64 array is read
where it is. Results are float64 arrays of the same length, NaN where there is no value yet. A parameter out of its range
raises ``ValueError``. Needs numpy (``pip install omega-bt[numpy]``).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from bt._extension import omega_bt

if TYPE_CHECKING:
    import numpy.typing as npt

    _Array = npt.NDArray[np.float64]

__all__ = [
    "adx",
    "atr",
    "bollinger",
    "choppiness",
    "cluster_state",
    "directional",
    "ema",
    "garch_sigma",
    "garch_sigma_local",
    "kalman_garch_z",
    "kalman_garch_z_local",
    "kalman_mean",
    "kalman_z",
    "kmeans",
    "macd",
    "roc",
    "rolling_max",
    "rolling_mean",
    "rolling_min",
    "rolling_sd",
    "rsi",
    "sma",
    "true_range",
    "z_score",
]


def _array(x: npt.ArrayLike) -> _Array:
    return np.ascontiguousarray(x, dtype=np.float64)


def sma(x: npt.ArrayLike, period: int) -> _Array:
    """Mean of the last ``period`` values; first defined at ``period - 1``."""
    return omega_bt.sma(_array(x), period)


def ema(x: npt.ArrayLike, period: int) -> _Array:
    """Exponential mean, ``alpha = 2 / (period + 1)``, seeded with the first value; as pandas ``ewm(adjust=False)``."""
    return omega_bt.ema(_array(x), period)


def rolling_mean(x: npt.ArrayLike, window: int) -> _Array:
    """Mean of a window, all values required."""
    return omega_bt.rolling_mean(_array(x), window)


def rolling_sd(x: npt.ArrayLike, window: int) -> _Array:
    """Sample deviation (ddof 1) of a window, all values required; 0 where all are equal."""
    return omega_bt.rolling_sd(_array(x), window)


def rolling_max(x: npt.ArrayLike, window: int) -> _Array:
    """Largest value of a window."""
    return omega_bt.rolling_max(_array(x), window)


def rolling_min(x: npt.ArrayLike, window: int) -> _Array:
    """Smallest value of a window."""
    return omega_bt.rolling_min(_array(x), window)


def bollinger(x: npt.ArrayLike, period: int = 20, factor: float = 2.0) -> tuple[_Array, _Array, _Array]:
    """Upper, middle and lower band: mean and ``factor`` sample deviations (ddof 1)."""
    return omega_bt.bollinger(_array(x), period, factor)


def true_range(high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike) -> _Array:
    """``max(H - L, |H - C'|, |L - C'|)``; ``H - L`` on the first bar."""
    return omega_bt.true_range(_array(high), _array(low), _array(close))


def atr(high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike, period: int = 14) -> _Array:
    """Wilder's average true range, seeded with the mean of the first ``period`` ranges, the first bar's included."""
    return omega_bt.atr(_array(high), _array(low), _array(close), period)


def choppiness(high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike, period: int = 14) -> _Array:
    """``100 log10(sum TR / (max H - min L)) / log10(period)``."""
    return omega_bt.choppiness(_array(high), _array(low), _array(close), period)


def directional(
    high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike, period: int = 14
) -> tuple[_Array, _Array]:
    """+DI and -DI in per cent, smoothed with ``alpha = 1 / period`` from the first bar on."""
    return omega_bt.directional(_array(high), _array(low), _array(close), period)


def adx(high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike, period: int = 14) -> _Array:
    """Average directional index in per cent, smoothed as :func:`directional`."""
    return omega_bt.adx(_array(high), _array(low), _array(close), period)


def rsi(x: npt.ArrayLike, period: int = 14) -> _Array:
    """Relative strength index, smoothed with ``alpha = 1 / period`` from the first change on."""
    return omega_bt.rsi(_array(x), period)


def roc(x: npt.ArrayLike, period: int = 14) -> _Array:
    """``100 (x - x[t - period]) / x[t - period]``."""
    return omega_bt.roc(_array(x), period)


def macd(x: npt.ArrayLike, fast: int = 12, slow: int = 26, signal: int = 9) -> tuple[_Array, _Array]:
    """Line (difference of two EMA) and its signal EMA, defined from the first value on."""
    return omega_bt.macd(_array(x), fast, slow, signal)


def z_score(x: npt.ArrayLike, window: int = 100, ema_period: int | None = None) -> _Array:
    """Distance from a mean over the sample deviation of that distance.

    The mean is the SMA of the same window or, with ``ema_period``, that EMA. The deviation is of the residuals, not of the
    values. No deviation: NaN if the residual is 0 too, else infinite.
    """
    return omega_bt.z_score(_array(x), window, ema_period)


def kalman_mean(x: npt.ArrayLike, r: float = 0.01, q: float = 1.0) -> _Array:
    """Kalman mean of a random walk: ``r`` measurement variance, ``q`` process variance."""
    return omega_bt.kalman_mean(_array(x), r, q)


def kalman_z(x: npt.ArrayLike, window: int = 100, r: float = 0.01, q: float = 1.0) -> _Array:
    """z-score around the Kalman mean."""
    return omega_bt.kalman_z(_array(x), window, r, q)


def _garch(
    alpha: float,
    beta: float,
    omega: float | None,
    log_returns: bool,
    scale: float,
    sigma_floor: float,
    min_periods: int,
) -> omega_bt._Garch:
    return {
        "alpha": alpha,
        "beta": beta,
        "omega": omega,
        "log_returns": log_returns,
        "scale": scale,
        "sigma_floor": sigma_floor,
        "min_periods": min_periods,
    }


def garch_sigma(
    x: npt.ArrayLike,
    *,
    alpha: float = 0.05,
    beta: float = 0.90,
    omega: float | None = None,
    log_returns: bool = True,
    scale: float = 100.0,
    sigma_floor: float = 1e-6,
    min_periods: int = 50,
) -> _Array:
    """GARCH(1,1) deviation of the returns of prices ``x``, as a fraction; the value at t uses returns up to t - 1."""
    garch = _garch(alpha, beta, omega, log_returns, scale, sigma_floor, min_periods)
    return omega_bt.garch_sigma(_array(x), garch)


def garch_sigma_local(
    x: npt.ArrayLike,
    index: int,
    lookback: int = 400,
    *,
    alpha: float = 0.05,
    beta: float = 0.90,
    omega: float | None = None,
    log_returns: bool = True,
    scale: float = 100.0,
    sigma_floor: float = 1e-6,
    min_periods: int = 50,
) -> _Array:
    """:func:`garch_sigma` of the last ``lookback`` prices up to ``index`` alone, one value per price of the window."""
    garch = _garch(alpha, beta, omega, log_returns, scale, sigma_floor, min_periods)
    return omega_bt.garch_sigma_local(_array(x), index, lookback, garch)


def kalman_garch_z(
    x: npt.ArrayLike,
    r: float = 0.01,
    q: float = 1.0,
    *,
    alpha: float = 0.05,
    beta: float = 0.90,
    omega: float | None = None,
    log_returns: bool = True,
    scale: float = 100.0,
    sigma_floor: float = 1e-6,
    min_periods: int = 50,
) -> _Array:
    """Distance of ``x`` from its Kalman mean in units of price times GARCH deviation."""
    garch = _garch(alpha, beta, omega, log_returns, scale, sigma_floor, min_periods)
    return omega_bt.kalman_garch_z(_array(x), r, q, garch)


def kalman_garch_z_local(
    x: npt.ArrayLike,
    index: int,
    lookback: int = 400,
    r: float = 0.01,
    q: float = 1.0,
    *,
    alpha: float = 0.05,
    beta: float = 0.90,
    omega: float | None = None,
    log_returns: bool = True,
    scale: float = 100.0,
    sigma_floor: float = 1e-6,
    min_periods: int = 50,
) -> float:
    """:func:`kalman_garch_z` at ``index`` from the last ``lookback`` prices alone; NaN where there is none."""
    garch = _garch(alpha, beta, omega, log_returns, scale, sigma_floor, min_periods)
    return omega_bt.kalman_garch_z_local(_array(x), index, lookback, r, q, garch)


def kmeans(x: npt.ArrayLike, k: int) -> tuple[_Array, npt.NDArray[np.uint32]]:
    """Centres (not sorted) and labels of one-dimensional k-means started from quantiles; no randomness."""
    return omega_bt.kmeans(_array(x), k)


def cluster_state(
    x: npt.ArrayLike, *, window: int, k: int = 3, min_points: int = 1, log_transform: bool = False
) -> dict[str, Any]:
    """Volatility cluster of the last value: ``status``, ``sample_size`` and, if ``ok``, label, labels, centres, sigma."""
    state: dict[str, Any] = json.loads(omega_bt.cluster_state(_array(x), window, k, min_points, log_transform))
    return state
