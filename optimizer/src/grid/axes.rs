//! `parameters`, `linked` and `constraints` of a grid: first as written, then typed by the strategy into a space.

use std::collections::BTreeMap;

use engine::backtest::RunConfig;
use engine::error::nearest;
use engine::strategy::{BuildContext, Family, ParamKind, ParamSpec};
use rust_decimal::Decimal;
use serde_json::Value;

use crate::diagnostic::Diagnostics;
use crate::document::{Node, NodeKind, Span};
use crate::expression::{Expression, Type};
use crate::grid::Grid;
use crate::grid::config_keys::{self, ConfigKey};
use crate::grid::reader::{At, Reader};
use crate::space::axis::{Axis, AxisFault, MAX_VALUES, Member, Target, Values, decimal};
use crate::space::constraint::{Constraint, Origin, Slot, Test};
use crate::space::value::{ValueKind, ValueType};
use crate::space::{Space, put};

/// An axis as written.
#[derive(Debug, Clone)]
pub(super) struct AxisEntry {
    key: String,
    key_span: Span,
    target: Target,
    span: Span,
    form: Form,
}

/// The ways to write the values of an axis.
#[derive(Debug, Clone)]
enum Form {
    Range { low: Decimal, high: Decimal, step: Option<Decimal> },
    Log { low: Decimal, high: Decimal, points: u64 },
    List(Vec<Node>),
}

/// A parameter with one value.
#[derive(Debug, Clone)]
pub(super) struct FixedEntry {
    key: String,
    target: Target,
    pub(super) key_span: Span,
    pub(super) node: Node,
}

impl FixedEntry {
    /// Its path in the run config.
    pub(super) fn config_path(&self) -> Vec<&str> {
        self.target.path()
    }

    /// Its path in the grid.
    pub(super) fn path(&self) -> String {
        format!("parameters.{}", self.key)
    }
}

/// Axes that move together.
#[derive(Debug, Clone)]
pub(super) struct LinkedEntry {
    path: String,
    span: Span,
    /// Name, its place, its target, its values.
    members: Vec<(String, Span, Target, Vec<Node>)>,
}

impl LinkedEntry {
    pub(super) fn has(&self, key: &str) -> bool {
        let target = target_of(key);
        self.members.iter().any(|(.., other, _)| *other == target)
    }
}

/// A constraint as written.
#[derive(Debug, Clone)]
pub(super) struct ConstraintEntry {
    path: String,
    node: Node,
    text: String,
}

/// Where the value of a key goes: a key of the run config, or a strategy parameter.
pub(super) fn target_of(key: &str) -> Target {
    match key.strip_prefix("strategy_parameters.") {
        Some(name) => Target::Parameter(name.to_owned()),
        None if config_keys::is_config_key(key) => Target::Config(key.to_owned()),
        None => Target::Parameter(key.to_owned()),
    }
}

/// The key may stand under `parameters`.
pub(super) fn is_axis_key(key: &str) -> bool {
    match target_of(key) {
        Target::Parameter(_) => true,
        Target::Config(path) => matches!(config_keys::lookup(&path), ConfigKey::Axis(_)),
    }
}

/// Refuses keys of the run config that may not be varied.
fn admit(reader: &mut Reader, path: &str, key: &str, key_span: &Span) -> bool {
    let Target::Config(config_key) = target_of(key) else { return true };
    match config_keys::lookup(&config_key) {
        ConfigKey::Axis(_) => return true,
        ConfigKey::Refused { reason, remedy } => {
            reader.fault_with_hint(key_span, path, format!("cannot be an axis: {reason}"), Some(remedy.to_owned()));
        }
        ConfigKey::Unknown => {
            let hint = nearest(&config_key, config_keys::axis_keys()).map(|name| format!("did you mean `{name}`?"));
            reader.fault_with_hint(key_span, path, "unknown key of the run config", hint);
        }
    }
    false
}

pub(super) fn read_parameters(reader: &mut Reader, at: Option<At<'_>>) -> (Vec<AxisEntry>, Vec<FixedEntry>) {
    let (mut axes, mut fixed): (Vec<AxisEntry>, Vec<FixedEntry>) = (Vec::new(), Vec::new());
    let Some(at) = at else { return (axes, fixed) };
    let Some(entries) = at.node.as_map() else {
        reader.wrong(&at, "a map of parameters to their values");
        return (axes, fixed);
    };
    for entry in entries {
        let path = format!("{}.{}", at.path, entry.key);
        if !admit(reader, &path, &entry.key, &entry.key_span) {
            continue;
        }
        let target = target_of(&entry.key);
        let known = axes.iter().map(|axis| &axis.target).chain(fixed.iter().map(|entry| &entry.target));
        if known.into_iter().any(|other| *other == target) {
            reader.fault(&entry.key_span, path, "is given twice");
            continue;
        }
        let value = At { path, node: &entry.value };
        let form = match &entry.value.kind {
            NodeKind::Text(text) if text.contains("..") => read_range(reader, &value, text),
            NodeKind::Map(_) => read_axis_map(reader, &value),
            NodeKind::List(items) if !is_one_list(&target, items) => Some(Form::List(items.clone())),
            _ => {
                let (key, key_span, node) = (entry.key.clone(), entry.key_span.clone(), entry.value.clone());
                fixed.push(FixedEntry { key, target, key_span, node });
                continue;
            }
        };
        if let Some(form) = form {
            let span = if entry.value.as_map().is_some() { entry.key_span.clone() } else { entry.value.span.clone() };
            axes.push(AxisEntry { key: entry.key.clone(), key_span: entry.key_span.clone(), target, span, form });
        }
    }
    (axes, fixed)
}

/// `sessions: [{start: …}]` is one value of a key whose values are lists, not an axis; `[null, [{start: …}]]` is one.
fn is_one_list(target: &Target, items: &[Node]) -> bool {
    let Target::Config(key) = target else { return false };
    let ConfigKey::Axis(value_type) = config_keys::lookup(key) else { return false };
    let takes_lists = value_type.is_list() || matches!(value_type.kind, ValueKind::Json);
    takes_lists && !items.iter().any(|item| item.is_null() || item.as_list().is_some())
}

/// `low..high:step` or `low..high`.
fn read_range(reader: &mut Reader, at: &At<'_>, text: &str) -> Option<Form> {
    let (low, rest) = text.split_once("..")?;
    let (high, step) = match rest.split_once(':') {
        Some((high, step)) => (high, Some(step)),
        None => (rest, None),
    };
    let parts = [Some(low), Some(high), step].map(|part| part.map(|part| decimal(part.trim())));
    match parts {
        [Some(Ok(low)), Some(Ok(high)), None] => Some(Form::Range { low, high, step: None }),
        [Some(Ok(low)), Some(Ok(high)), Some(Ok(step))] => Some(Form::Range { low, high, step: Some(step) }),
        _ => {
            reader.wrong(at, "a range `low..high:step` of numbers");
            None
        }
    }
}

fn read_axis_map(reader: &mut Reader, at: &At<'_>) -> Option<Form> {
    if at.node.get("values").is_some() {
        reader.map(at, &["values"]);
        let values = at.key("values")?;
        return match values.node.as_list() {
            Some(items) => Some(Form::List(items.to_vec())),
            None => {
                reader.wrong(&values, "a list");
                None
            }
        };
    }
    let faults = reader.found.items.len();
    reader.map(at, &["min", "max", "step", "scale", "points"]);
    let log = at.key("scale").map_or(Some(false), |scale| reader.word(&scale, &[("log", true), ("linear", false)]));
    let mut number = |key: &str| {
        let value = at.key(key)?;
        let parsed = match &value.node.kind {
            NodeKind::Number(literal) => decimal(literal).ok(),
            _ => None,
        };
        if parsed.is_none() {
            reader.wrong(&value, "a number");
        }
        parsed
    };
    let (low, high, step) = (number("min"), number("max"), number("step"));
    let points = at.key("points").and_then(|points| reader.whole(&points, 2, MAX_VALUES));
    let mut misplaced = |key: &str, message: &str| {
        if let Some(entry) = at.node.entry(key) {
            reader.fault(&entry.key_span, format!("{}.{key}", at.path), message);
        }
    };
    match log {
        Some(true) => misplaced("step", "a logarithmic axis has `points`, not `step`"),
        Some(false) => misplaced("points", "`points` needs `scale: log`; a linear axis has `step`"),
        None => {}
    }
    let required: &[&str] = if log == Some(true) { &["min", "max", "points"] } else { &["min", "max"] };
    for key in required {
        if at.node.get(key).is_none() && reader.found.items.len() == faults {
            reader.fault(&at.node.span, format!("{}.{key}", at.path), "is required");
        }
    }
    if reader.found.items.len() > faults {
        return None;
    }
    match log? {
        true => Some(Form::Log { low: low?, high: high?, points: points? }),
        false => Some(Form::Range { low: low?, high: high?, step }),
    }
}

pub(super) fn read_linked(
    reader: &mut Reader,
    at: Option<At<'_>>,
    parameters: &[AxisEntry],
    fixed: &[FixedEntry],
) -> Vec<LinkedEntry> {
    let mut linked: Vec<LinkedEntry> = Vec::new();
    let Some(at) = at else { return linked };
    for (number, node) in reader.list(&at).iter().enumerate() {
        let item = at.item(number, node);
        let faults = reader.found.items.len();
        reader.map(&item, &["names", "values"]);
        let (Some(names), Some(values)) = (item.key("names"), item.key("values")) else {
            if reader.found.items.len() == faults {
                reader.fault(&node.span, item.path, "needs `names` and `values`");
            }
            continue;
        };
        let mut members: Vec<(String, Span, Target, Vec<Node>)> = Vec::new();
        for (position, node) in reader.list(&names).iter().enumerate() {
            let at = names.item(position, node);
            let Some(name) = reader.text(&at) else { continue };
            if !admit(reader, &at.path, name, &node.span) {
                continue;
            }
            let target = target_of(name);
            let taken = parameters.iter().any(|axis| axis.target == target)
                || fixed.iter().any(|entry| entry.target == target)
                || linked.iter().any(|entry| entry.has(name))
                || members.iter().any(|(.., other, _)| *other == target);
            if taken {
                reader.fault(&node.span, at.path, format!("`{name}` is given twice"));
            } else {
                members.push((name.to_owned(), node.span.clone(), target, Vec::new()));
            }
        }
        for (position, node) in reader.list(&values).iter().enumerate() {
            let row = values.item(position, node);
            let cells = reader.list(&row);
            if node.as_list().is_some() && cells.len() != members.len() && reader.found.items.len() == faults {
                let message = format!("must hold one value per name, {}, got {}", members.len(), cells.len());
                reader.fault(&node.span, row.path, message);
            }
            for (member, cell) in members.iter_mut().zip(cells) {
                member.3.push(cell.clone());
            }
        }
        if reader.found.items.len() == faults {
            linked.push(LinkedEntry { path: item.path, span: node.span.clone(), members });
        }
    }
    linked
}

pub(super) fn read_constraints(reader: &mut Reader, at: Option<At<'_>>) -> Vec<ConstraintEntry> {
    let Some(at) = at else { return Vec::new() };
    let mut constraints = Vec::new();
    for (number, node) in reader.list(&at).iter().enumerate() {
        let item = at.item(number, node);
        if let Some(text) = reader.text(&item) {
            constraints.push(ConstraintEntry { path: item.path.clone(), node: node.clone(), text: text.to_owned() });
        }
    }
    constraints
}

/// Types the axes of a grid and binds its constraints.
pub(super) fn build_space(
    grid: &Grid,
    family: &dyn Family,
    context: &BuildContext,
    normalised: &Value,
) -> Result<Space, Box<Diagnostics>> {
    let specs = family.parameters_in(context);
    let mut builder = Builder { reader: Reader::default(), family, specs: &specs, context, normalised };
    let mut axes = Vec::new();
    for entry in &grid.parameters {
        if let Some(member) = builder.parameter_axis(entry) {
            axes.push(Axis { members: vec![member] });
        }
    }
    for entry in &grid.linked {
        if let Some(axis) = builder.linked_axis(entry) {
            axes.push(axis);
        }
    }
    // Constraints are read even when axes are faulty, so that all faults show at once; names of faulty axes are known.
    let mut known: Vec<String> = grid.parameters.iter().map(|entry| entry.key.clone()).collect();
    known.extend(grid.linked.iter().flat_map(|entry| entry.members.iter().map(|(name, ..)| name.clone())));
    let parsed: Vec<Option<Expression>> =
        grid.constraints.iter().map(|entry| builder.expression(entry, &known)).collect();
    let reader = std::mem::take(&mut builder.reader);
    reader.found.or(())?;

    let Some(space) = Space::new(axes) else {
        let span = grid.section("parameters");
        let all = Diagnostics::at(span, "parameters", "the axes span more than 2^128 points");
        return Err(Box::new(all));
    };
    let mut constraints = Vec::new();
    for (entry, expression) in grid.constraints.iter().zip(parsed) {
        let Some(expression) = expression else { continue };
        let slots = expression.names().iter().map(|name| builder.slot(&space, name)).collect();
        let test = Test::Expression { expression, slots };
        let span = Some(entry.node.span.clone());
        constraints.push(Constraint::new(entry.text.clone(), Origin::Grid, span, test, space.axes()));
    }
    for declared in family.constraints() {
        let mut varying = Vec::new();
        let mut fixed = BTreeMap::new();
        for name in declared.parameters {
            match builder.find(&space, name) {
                Some((axis, member)) => varying.push(((*name).to_owned(), axis, member)),
                None => {
                    fixed.insert((*name).to_owned(), builder.fixed_parameter(name));
                }
            }
        }
        let test = Test::Declared { constraint: *declared, context: Box::new(context.clone()), fixed, varying };
        constraints.push(Constraint::new(declared.text.to_owned(), Origin::Strategy, None, test, space.axes()));
    }
    Ok(space.with_constraints(constraints))
}

struct Builder<'a> {
    reader: Reader,
    family: &'a dyn Family,
    specs: &'a [ParamSpec],
    context: &'a BuildContext,
    normalised: &'a Value,
}

impl Builder<'_> {
    fn spec(&self, name: &str) -> Option<&ParamSpec> {
        self.specs.iter().find(|spec| spec.name == name)
    }

    fn value_type(&self, target: &Target) -> Option<ValueType> {
        match target {
            Target::Parameter(name) => match self.spec(name) {
                Some(spec) => Some(ValueType { kind: ValueKind::Param(spec.kind), nullable: spec.nullable }),
                None => {
                    let kind = self.family.dynamic_parameter(name)?;
                    Some(ValueType { kind: ValueKind::Param(kind), nullable: false })
                }
            },
            Target::Config(path) => match config_keys::lookup(path) {
                ConfigKey::Axis(value_type) => Some(value_type),
                _ => None,
            },
        }
    }

    /// Every name an axis or a constraint may use.
    fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.specs.iter().map(|spec| spec.name).chain(config_keys::axis_keys())
    }

    fn known_type(&mut self, path: &str, name: &str, key_span: &Span, target: &Target) -> Option<ValueType> {
        let value_type = self.value_type(target);
        if value_type.is_none() {
            // Of an override, the last part is the name; what stands before it says where it applies.
            let (place, last) = match name.rsplit_once('.') {
                Some((place, last)) if place.starts_with("overrides.") => (format!("{place}."), last),
                _ => (String::new(), name),
            };
            let hint = nearest(last, self.names()).map(|name| format!("did you mean `{place}{name}`?"));
            let message = format!("unknown parameter of `{}`", self.family.name());
            self.reader.fault_with_hint(key_span, path, message, hint);
        }
        value_type
    }

    fn parameter_axis(&mut self, entry: &AxisEntry) -> Option<Member> {
        let path = format!("parameters.{}", entry.key);
        let value_type = self.known_type(&path, &entry.key, &entry.key_span, &entry.target)?;
        let values = match &entry.form {
            Form::List(items) => self.listed(&path, items, value_type, &entry.target).map(Values::list)?,
            Form::Range { .. } | Form::Log { .. } if !value_type.is_numeric() => {
                let message = format!("a range needs a number; `{}` is {}", entry.key, value_type.range_text());
                let hint = Some("list the values: `{values: [...]}`".to_owned());
                self.reader.fault_with_hint(&entry.span, path, message, hint);
                return None;
            }
            Form::Range { low, high, step } => match step {
                Some(step) => Values::lattice(*low, *high, *step, value_type.is_whole()),
                None if value_type.is_whole() => Values::lattice(*low, *high, Decimal::ONE, true),
                None => Err(AxisFault {
                    message: format!("`{}` takes fractions, so the range needs a step", entry.key),
                    hint: Some(format!("for example `{low}..{high}:0.1`")),
                }),
            },
            Form::Log { low, high, points } => Values::log(*low, *high, *points, value_type.is_whole()),
        };
        let values = match values {
            Ok(values) => values,
            Err(fault) => {
                self.reader.fault_with_hint(&entry.span, path, fault.message, fault.hint);
                return None;
            }
        };
        if !matches!(entry.form, Form::List(_))
            && let Some(rule) =
                values.extremes().iter().find_map(|(_, value)| self.check(&value_type, &entry.target, value).err())
        {
            self.reader.fault(&entry.span, path, format!("every value {rule}"));
            return None;
        }
        Some(Member { name: entry.key.clone(), target: entry.target.clone(), value_type, values })
    }

    fn linked_axis(&mut self, entry: &LinkedEntry) -> Option<Axis> {
        let mut members = Vec::new();
        for (number, (name, span, target, nodes)) in entry.members.iter().enumerate() {
            let path = format!("{}.names[{number}]", entry.path);
            let value_type = self.known_type(&path, name, span, target)?;
            let values = self.listed(&format!("{}.values", entry.path), nodes, value_type, target)?;
            members.push(Member {
                name: name.clone(),
                target: target.clone(),
                value_type,
                values: Values::List(values),
            });
        }
        let axis = Axis { members };
        let mut rows: Vec<String> = (0..axis.len())
            .map(|k| axis.members.iter().map(|member| member.values.get(k).to_string()).collect::<Vec<_>>().join(", "))
            .collect();
        rows.sort_unstable();
        let fault = match (rows.is_empty(), rows.windows(2).find(|pair| pair[0] == pair[1])) {
            (true, _) => Some("at least one row of values is needed".to_owned()),
            (_, Some(twice)) => Some(format!("the row [{}] is listed twice", twice[0])),
            _ => None,
        };
        match fault {
            Some(message) => {
                self.reader.fault(&entry.span, entry.path.clone(), message);
                None
            }
            None => Some(axis),
        }
    }

    /// Listed values, typed; all faults are collected.
    fn listed(&mut self, path: &str, items: &[Node], value_type: ValueType, target: &Target) -> Option<Vec<Value>> {
        let mut values = Vec::with_capacity(items.len());
        for (number, node) in items.iter().enumerate() {
            let value = value_type.read(node);
            match self.check(&value_type, target, &value) {
                Ok(()) => values.push(value),
                Err(rule) => {
                    let single = value_type.is_list() && node.as_list().is_none();
                    let hint =
                        single.then(|| "each value of this parameter is itself a list: `[[1], [1, 2]]`".to_owned());
                    self.reader.fault_with_hint(&node.span, format!("{path}[{number}]"), rule, hint);
                }
            }
        }
        (values.len() == items.len()).then_some(values)
    }

    /// Checks one value; the fault is the rule and the value found.
    fn check(&self, value_type: &ValueType, target: &Target, value: &Value) -> Result<(), String> {
        value_type.check(value)?;
        match target {
            Target::Parameter(name) => {
                self.family.check_parameter(name, value, self.context).map_err(|violation| violation.reason)
            }
            Target::Config(key) => {
                // What only the run config can judge is tried in it.
                if !matches!(value_type.kind, ValueKind::Json | ValueKind::Param(ParamKind::Text | ParamKind::TextList))
                {
                    return Ok(());
                }
                let mut config = self.normalised.clone();
                put(&mut config, target, value.clone());
                let violations = RunConfig::parse(&config, true).err().unwrap_or_default();
                match violations.iter().find(|violation| violation.path.starts_with(key.as_str())) {
                    Some(violation) => {
                        let inside = violation.path[key.len()..].trim_start_matches('.');
                        let colon = if inside.is_empty() { "" } else { ": " };
                        Err(format!("{inside}{colon}{}", violation.reason))
                    }
                    None => Ok(()),
                }
            }
        }
    }

    fn expression(&mut self, entry: &ConstraintEntry, axes: &[String]) -> Option<Expression> {
        let resolve = |name: &str| -> Result<Type, Option<String>> {
            self.value_type(&target_of(name)).map(|value_type| value_type.expression_type()).ok_or_else(|| {
                let mut known: Vec<&str> = self.names().collect();
                known.extend(axes.iter().map(String::as_str));
                Some(match nearest(name, known) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("a constraint reads axes and parameters; text is quoted: \"{name}\""),
                })
            })
        };
        let parsed = Expression::parse(&entry.text, "axis or parameter", &resolve);
        let at = At { path: entry.path.clone(), node: &entry.node };
        match parsed {
            Ok(expression) if matches!(expression.result_type(), Type::Bool | Type::Any) => Some(expression),
            Ok(_) => {
                let hint = Some("for example `ema_length < window_length`".to_owned());
                self.reader.fault_with_hint(&entry.node.span, at.path, "a constraint is a condition", hint);
                None
            }
            Err(error) => {
                self.reader.expression(&at, &entry.text, error);
                None
            }
        }
    }

    fn find(&self, space: &Space, name: &str) -> Option<(usize, usize)> {
        let target = target_of(name);
        space.columns().iter().find(|column| column.target == target).map(|column| (column.axis, column.member))
    }

    fn slot(&self, space: &Space, name: &str) -> Slot {
        if let Some((axis, member)) = self.find(space, name) {
            return Slot::Axis { axis, member };
        }
        Slot::fixed(match target_of(name) {
            Target::Parameter(name) => self.fixed_parameter(&name),
            Target::Config(path) => {
                let pointer = format!("/{}", path.replace('.', "/"));
                self.normalised.pointer(&pointer).cloned().unwrap_or(Value::Null)
            }
        })
    }

    /// A parameter that is no axis: as given, else its default.
    fn fixed_parameter(&self, name: &str) -> Value {
        let given = self.normalised.get("strategy_parameters").and_then(|parameters| parameters.get(name));
        match given {
            Some(value) => value.clone(),
            None => self.spec(name).map_or(Value::Null, |spec| spec.default.to_value()),
        }
    }
}
