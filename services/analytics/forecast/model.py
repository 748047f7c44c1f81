"""Forecasts and anomalies of hourly series with daily and weekly seasons.

Reads one JSON document from standard input, writes one to standard output. The series is decomposed with MSTL
(Bandara, Hyndman, Bergmeir 2021, https://arxiv.org/abs/2107.13462) of statsmodels, on a logarithmic scale because
seasons, noise and anomalies of token use are factors; what is left after the seasons goes on by a damped trend (ETS).

In:  {"horizon": hours, "folds": n, "threshold": z, "series": {"<name>": [tokens per hour, ...]}}
Out: {"<name>": {"forecast": [[expected, low, high], ...], "accuracy": 1 - WAPE or null,
                 "anomalies": [[index, expected, score], ...]} or {"problem": "..."}}
"""

import json
import sys
import warnings

import numpy as np
import pandas as pd
from statsmodels.tsa.holtwinters import ExponentialSmoothing
from statsmodels.tsa.seasonal import MSTL, STL

DAY = 24
WEEK = 7 * DAY
# Two weeks let the weekly season be told from chance; below two days there is no season at all.
SHORTEST = 2 * DAY
# The 90 % interval of the normal distribution.
Z90 = 1.645
# An hour within this factor of what was expected is nothing to act on, however regular the rest of the series is.
LEAST_EFFECT = np.log(1.3)


class Decomposition:
    """Seasons of a series by the hour, what is left, and how it goes on; all logarithmic."""

    def __init__(self, log):
        self.log = log
        self.periods = [period for period in (DAY, WEEK) if len(log) >= 2 * period]
        # Smoothed at every third point and drawn between: a tenth of the time, the same figures.
        options = {"robust": True, "seasonal_jump": 3, "trend_jump": 12, "low_pass_jump": 12}
        effort = {"inner_iter": 2, "outer_iter": 4}
        if len(self.periods) == 2:
            # Two passes find both seasons of these series; a wide window keeps an odd week from becoming the season.
            parts = MSTL(log, periods=self.periods, windows=(51, 51), iterate=2, stl_kwargs=options | effort)
            fit = parts.fit()
            self.seasons = fit.seasonal
        else:
            fit = STL(log, period=DAY, seasonal=51, **options).fit(**effort)
            self.seasons = fit.seasonal[:, None]
        self.trend = fit.trend
        self.middle = self.trend + self.seasons.sum(axis=1)
        self.residuals = log - self.middle

    def season_ahead(self, hours):
        length = len(self.log)
        total = np.zeros(hours)
        for column, period in enumerate(self.periods):
            last = self.seasons[length - period :, column]
            total += last[np.arange(hours) % period]
        return total


def logarithms(values):
    return np.log1p(np.asarray(values, dtype=float))


def forecast(values, horizon):
    """Expected tokens of the next hours with the bounds of 90 %."""
    parts = Decomposition(logarithms(values))
    level = parts.log - parts.seasons.sum(axis=1)
    # An anomaly must not bend the trend that goes on from it.
    scale = spread(parts.residuals)
    level = np.where(np.abs(parts.residuals) > 4 * scale, parts.trend, level)
    # By the day: a trend of single hours is noise.
    days = len(level) // DAY
    daily = level[len(level) - days * DAY :].reshape(days, DAY).mean(axis=1)
    ahead = -(-horizon // DAY) + 1
    model = ExponentialSmoothing(daily, trend="add", damped_trend=True, initialization_method="estimated")
    path = model.fit().forecast(ahead)
    hours = np.arange(1, horizon + 1) - 0.5 + DAY / 2
    line = np.interp(hours, np.arange(ahead + 1) * DAY, np.concatenate([[daily[-1]], path]))
    middle = line + parts.season_ahead(horizon)
    width = Z90 * scale * np.sqrt(1 + np.arange(horizon) / WEEK)
    return np.maximum(0, np.expm1(np.stack([middle, middle - width, middle + width], axis=1)))


def spread(residuals):
    """Standard deviation by the median, which anomalies do not move."""
    return max(1e-3, 1.4826 * float(np.median(np.abs(residuals - np.median(residuals)))))


def backtest(values, horizon, folds):
    """1 - WAPE of forecasts from `folds` origins, each with what was known then; None when the series is too short."""
    missed = total = 0.0
    for fold in range(folds, 0, -1):
        origin = len(values) - fold * horizon
        if origin < 2 * WEEK:
            continue
        truth = np.asarray(values[origin : origin + horizon], dtype=float)
        missed += float(np.abs(truth - forecast(values[:origin], horizon)[:, 0]).sum())
        total += float(truth.sum())
    return None if total == 0 else 1 - missed / total


def screened(log):
    """Mean of a whole period, and medians of its phases: they do not move when one week of several is odd."""
    period = WEEK if len(log) >= 3 * WEEK else DAY
    trend = prolonged(pd.Series(log).rolling(period, center=True).mean().to_numpy(copy=True), period)
    phase = np.arange(len(log)) % period
    season = pd.Series(log - trend).groupby(phase).median().to_numpy()
    return trend + season[phase]


def prolonged(trend, period):
    """The same with its unknown ends as straight lines."""
    known = np.flatnonzero(~np.isnan(trend))
    for side in (known[:period], known[-period:]):
        line = np.polyfit(side, trend[side], 1) if len(side) > 1 else [0, trend[side[0]]]
        ends = np.arange(known[0]) if side[0] == known[0] else np.arange(known[-1] + 1, len(trend))
        trend[ends] = np.polyval(line, ends)
    return trend


def is_odd(log, middle, threshold):
    residuals = log - middle
    scores = residuals / spread(residuals)
    return scores, (np.abs(scores) > threshold) & (np.abs(residuals) > LEAST_EFFECT)


def anomalies(values, threshold):
    """Hours whose residual is far out of the usual: index, what was expected, how many deviations it is off.

    An odd hour bends the season of its hour of the week, so that the same hour of other weeks would look odd too. Hence
    what looks odd beside medians is replaced by them, and the seasons by which hours are judged are found without it.
    """
    log = logarithms(values)
    middle = screened(log)
    _, odd = is_odd(log, middle, threshold)
    for _ in range(2):
        middle = Decomposition(np.where(odd, middle, log)).middle
        scores, odd = is_odd(log, middle, threshold)
    return [[int(at), float(np.expm1(middle[at])), float(scores[at])] for at in np.flatnonzero(odd)]


def answer(values, horizon, folds, threshold):
    if len(values) < SHORTEST:
        return {"problem": f"{len(values)} hours are known, {SHORTEST} are needed"}
    return {
        "forecast": forecast(values, horizon).tolist(),
        "accuracy": backtest(values, horizon, folds),
        "anomalies": anomalies(values, threshold),
    }


def main():
    # A fit that does not converge on a flat series is no matter for a log: the back-test says what it is worth.
    warnings.simplefilter("ignore")
    asked = json.load(sys.stdin)
    series = asked["series"].items()
    json.dump({name: answer(values, asked["horizon"], asked["folds"], asked["threshold"]) for name, values in series}, sys.stdout)


if __name__ == "__main__":
    main()
