//! Rules as text, one fact a line: what the tests of strategies compare.

use std::fmt::Write as _;

use crate::rules::{Comparison, Condition, Expr, LateGuard, Operand, RuleSet};

pub(super) fn rules(set: &RuleSet) -> String {
    let mut out = String::new();
    if let Some(decimals) = set.level_decimals {
        writeln!(out, "levels rounded to {decimals} decimals").unwrap();
    }
    for rule in &set.rules {
        writeln!(
            out,
            "{} {} {} {} [{}]",
            rule.direction,
            rule.scenario_id,
            rule.label,
            rule.reason,
            rule.tags.join(" ")
        )
        .unwrap();
        for expr in &rule.when {
            writeln!(out, "  {}", expression(expr)).unwrap();
        }
        for guard in &rule.guards {
            writeln!(out, "  guard {}", late(guard)).unwrap();
        }
        for (name, level) in [("stop", &rule.stop), ("target", &rule.target)] {
            if let Some(level) = level {
                writeln!(out, "  {name} {}", operand(level)).unwrap();
            }
        }
        if let Some(lots) = rule.lots {
            writeln!(out, "  lots {}", lots.get()).unwrap();
        }
        if let Some(condition) = &rule.exit.condition {
            writeln!(out, "  exit if {}", expression(condition)).unwrap();
        }
        if let Some(bars) = rule.exit.hold_bars {
            writeln!(out, "  exit after {bars} bars").unwrap();
        }
    }
    out
}

fn operand(operand: &Operand) -> String {
    match operand {
        Operand::Const(value) => value.get().to_string(),
        Operand::Column(key) => column(key),
        Operand::Linear { base, factor, term } => format!("{} + {} x {}", column(base), factor.get(), column(term)),
        Operand::Offset { base, offset } => format!("{} + {}", column(base), offset.get()),
    }
}

fn column(key: &crate::indicators::ColumnKey) -> String {
    match key.method {
        crate::indicators::HtfMethod::Native => key.to_string(),
        crate::indicators::HtfMethod::Stepwise => format!("{key}:stepwise"),
    }
}

fn symbol(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    }
}

fn expression(expr: &Expr) -> String {
    let list = |parts: &[Expr]| parts.iter().map(expression).collect::<Vec<_>>().join("; ");
    match expr {
        Expr::Is(Condition { left, comparison, right, finite }) => {
            let finite = if *finite { "finite " } else { "" };
            format!("{finite}{} {} {}", operand(left), symbol(*comparison), operand(right))
        }
        Expr::All(parts) => format!("all({})", list(parts)),
        Expr::Any(parts) => format!("any({})", list(parts)),
        Expr::AtLeast { count, of } => format!("at least {count} of ({})", list(of)),
        Expr::Never(why) => format!("never: {why}"),
    }
}

fn late(guard: &LateGuard) -> String {
    match guard {
        LateGuard::LocalKalmanGarchZ { r, q, min_periods, lookback, comparison, threshold, .. } => format!(
            "local_kalman_garch_z(r {}, q {}, min_periods {min_periods}, lookback {lookback}) {} {}",
            r.get(),
            q.get(),
            symbol(*comparison),
            threshold.get()
        ),
        LateGuard::VolCluster { feature, window, k, min_points, log_transform, hysteresis_bars, allowed } => format!(
            "vol_cluster({}, window {window}, k {k}, min_points {min_points}, log {log_transform}, hysteresis \
             {hysteresis_bars}) in [{}]",
            match feature {
                crate::rules::ClusterFeature::Atr { length } => format!("atr({length})"),
                crate::rules::ClusterFeature::LocalGarch { lookback, min_periods, .. } =>
                    format!("local_garch(lookback {lookback}, min_periods {min_periods})"),
            },
            allowed.join(" ")
        ),
    }
}
