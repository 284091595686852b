//! Relations that settings must satisfy: those of the grid and those the strategy declares.
//!
//! A constraint is tried once on every combination of the axes it reads, where these are few, and is a look-up in a
//! bit table from then on.

use std::collections::BTreeMap;
use std::fmt;

use engine::strategy::{BuildContext, DeclaredConstraint};
use serde_json::Value;

use crate::document::Span;
use crate::expression::{Datum, Expression};
use crate::space::axis::Axis;
use crate::space::value::datum;

/// Most combinations of the axes of one constraint that are tried beforehand.
const TABLE_LIMIT: u128 = 1 << 22;

/// Longest axis whose values are held while a constraint reads them; those of longer ones are made one by one.
const HELD_VALUES: u32 = 1 << 20;

/// Who demands it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The grid file.
    Grid,
    /// The strategy.
    Strategy,
}

impl Origin {
    /// `grid` or `strategy`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grid => "grid",
            Self::Strategy => "strategy",
        }
    }
}

/// Where a name of an expression gets its value.
#[derive(Debug, Clone, PartialEq)]
pub enum Slot {
    /// Member `member` of axis `axis`.
    Axis {
        /// Index of the axis.
        axis: usize,
        /// Index among its members.
        member: usize,
    },
    /// The same in all settings; the text is its JSON form.
    Fixed(Value, String),
}

impl Slot {
    /// A value that does not vary.
    pub fn fixed(value: Value) -> Self {
        let text = value.to_string();
        Self::Fixed(value, text)
    }
}

/// How it is decided.
pub enum Test {
    /// An expression whose names are looked up in the slots.
    Expression {
        /// The condition.
        expression: Expression,
        /// One per name.
        slots: Vec<Slot>,
    },
    /// A function of the strategy.
    Declared {
        /// The constraint.
        constraint: DeclaredConstraint,
        /// What the strategy is built for.
        context: Box<BuildContext>,
        /// Values of the parameters that are no axis: given or default.
        fixed: BTreeMap<String, Value>,
        /// Parameters that are axes: name, axis, member.
        varying: Vec<(String, usize, usize)>,
    },
}

/// One relation, bound to the axes of a space.
pub struct Constraint {
    /// As written.
    pub text: String,
    /// Who demands it.
    pub origin: Origin,
    /// Its place in the grid file, if it stands there.
    pub span: Option<Span>,
    test: Test,
    /// Values of the axis behind each name of the test, with the JSON text of those that are lists or objects; none
    /// for a fixed or a long one.
    held: Vec<Option<Vec<(Value, String)>>>,
    /// Axes it reads, ascending.
    axes: Vec<usize>,
    /// Lengths of these axes.
    lens: Vec<u32>,
    table: Option<Table>,
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.origin.as_str())
    }
}

/// One bit per combination of the axes, the last axis fastest; set: the constraint holds.
struct Table {
    bits: Vec<u64>,
    broken: u64,
}

impl Constraint {
    /// Binds a test to the axes it reads and tries it on all their combinations where these are few.
    pub fn new(text: String, origin: Origin, span: Option<Span>, test: Test, all: &[Axis]) -> Self {
        let mut axes: Vec<usize> = match &test {
            Test::Expression { slots, .. } => slots
                .iter()
                .filter_map(|slot| match slot {
                    Slot::Axis { axis, .. } => Some(*axis),
                    Slot::Fixed(..) => None,
                })
                .collect(),
            Test::Declared { varying, .. } => varying.iter().map(|(_, axis, _)| *axis).collect(),
        };
        axes.sort_unstable();
        axes.dedup();
        let lens: Vec<u32> = axes.iter().map(|axis| all.get(*axis).map_or(0, Axis::len)).collect();
        let held = hold(&test, all);
        let mut constraint = Self { text, origin, span, test, held, axes, lens, table: None };
        constraint.table = constraint.tabulate(all);
        constraint
    }

    /// Axes it reads, ascending.
    pub fn axes(&self) -> &[usize] {
        &self.axes
    }

    /// Whether a point satisfies it; `point` holds one value index per axis of the space.
    pub fn holds(&self, point: &[u32], all: &[Axis]) -> bool {
        match &self.table {
            Some(table) => {
                let index = self.axes.iter().zip(&self.lens).fold(0_usize, |index, (axis, len)| {
                    index * *len as usize + point.get(*axis).copied().unwrap_or(0) as usize
                });
                table.bits.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
            }
            None => self.try_point(point, all),
        }
    }

    /// Number of combinations of its own axes that break it; none if they are too many to have been tried.
    pub fn broken_combinations(&self) -> Option<u64> {
        self.table.as_ref().map(|table| table.broken)
    }

    /// Combinations of its own axes.
    pub fn combinations(&self) -> u128 {
        self.lens.iter().map(|len| u128::from(*len)).fold(1, u128::saturating_mul)
    }

    fn tabulate(&self, all: &[Axis]) -> Option<Table> {
        let combinations = self.combinations();
        if combinations > TABLE_LIMIT {
            return None;
        }
        let combinations = combinations as usize;
        let mut point = vec![0_u32; all.len()];
        let mut table = Table { bits: vec![0; combinations.div_ceil(64)], broken: 0 };
        for index in 0..combinations {
            let mut rest = index;
            for (axis, len) in self.axes.iter().zip(&self.lens).rev() {
                point[*axis] = (rest % *len as usize) as u32;
                rest /= *len as usize;
            }
            if self.try_point(&point, all) {
                table.bits[index / 64] |= 1 << (index % 64);
            } else {
                table.broken += 1;
            }
        }
        Some(table)
    }

    fn try_point(&self, point: &[u32], all: &[Axis]) -> bool {
        let index = |axis: usize| point.get(axis).copied().unwrap_or(0);
        match &self.test {
            Test::Expression { expression, slots } => {
                // Values that are not held are made first: an expression borrows text from them.
                let made: Vec<(Value, String)> = if self.held.iter().all(Option::is_some) {
                    Vec::new()
                } else {
                    slots
                        .iter()
                        .map(|slot| match slot {
                            Slot::Axis { axis, member } => with_text(value_at(all, *axis, *member, index(*axis))),
                            Slot::Fixed(value, text) => (value.clone(), text.clone()),
                        })
                        .collect()
                };
                let lookup = |number: usize| {
                    let pair = match (slots.get(number), self.held.get(number)) {
                        (Some(Slot::Axis { axis, .. }), Some(Some(held))) => held.get(index(*axis) as usize),
                        (Some(Slot::Fixed(..)), Some(Some(held))) => held.first(),
                        _ => made.get(number),
                    };
                    pair.map_or(Datum::Undefined, |(value, text)| datum(value, text))
                };
                holds(expression, &lookup)
            }
            Test::Declared { constraint, context, fixed, varying } => {
                let lookup = |name: &str| -> Value {
                    match varying.iter().position(|(varying, ..)| varying == name) {
                        Some(number) => {
                            let (_, axis, member) = varying[number];
                            match &self.held[number] {
                                Some(held) => {
                                    held.get(index(axis) as usize).map_or(Value::Null, |(value, _)| value.clone())
                                }
                                None => value_at(all, axis, member, index(axis)),
                            }
                        }
                        None => fixed.get(name).cloned().unwrap_or(Value::Null),
                    }
                };
                (constraint.holds)(&lookup, context)
            }
        }
    }
}

fn value_at(all: &[Axis], axis: usize, member: usize, k: u32) -> Value {
    all.get(axis).and_then(|axis| axis.members.get(member)).map_or(Value::Null, |member| member.values.get(k))
}

fn with_text(value: Value) -> (Value, String) {
    let text = if value.is_array() || value.is_object() { value.to_string() } else { String::new() };
    (value, text)
}

/// The values of every name of a test, where they are few enough to be held.
fn hold(test: &Test, all: &[Axis]) -> Vec<Option<Vec<(Value, String)>>> {
    let series = |axis: usize, member: usize| {
        let len = all.get(axis).map_or(0, Axis::len);
        (len <= HELD_VALUES).then(|| (0..len).map(|k| with_text(value_at(all, axis, member, k))).collect())
    };
    match test {
        Test::Expression { slots, .. } => slots
            .iter()
            .map(|slot| match slot {
                Slot::Axis { axis, member } => series(*axis, *member),
                Slot::Fixed(value, text) => Some(vec![(value.clone(), text.clone())]),
            })
            .collect(),
        Test::Declared { varying, .. } => varying.iter().map(|(_, axis, member)| series(*axis, *member)).collect(),
    }
}

/// [`Expression::holds`] for values that live shorter than the expression.
fn holds<'a>(expression: &'a Expression, lookup: &dyn Fn(usize) -> Datum<'a>) -> bool {
    expression.holds(lookup)
}
