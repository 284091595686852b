//! The settings a sweep may try: axes, their lattice, and the constraints between them.
//!
//! A setting is a point of the lattice: one value index per axis, or one 128-bit number, the axes in the order of the
//! grid and the last one fastest. Which points are tried, and under which trial number, is the business of
//! [`crate::search`].

pub mod axis;
pub mod constraint;
pub mod index;
pub mod value;

use serde_json::{Map, Value};

use axis::{Axis, Target};
use constraint::Constraint;
pub use value::ColumnKind;

/// Most points a lattice may have: indices are 128 bits wide.
pub const MAX_POINTS: u128 = u128::MAX;

/// One point of a space under its trial number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Trial number, from 0.
    pub trial: u64,
    /// Number of the point in the lattice, from 0.
    pub lattice_index: u128,
    /// Index of the value on each axis.
    pub value_index: Vec<u32>,
}

/// A column `param.<name>` of the results.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamColumn {
    /// Name without the prefix.
    pub name: String,
    /// Type.
    pub kind: ColumnKind,
    /// Where the value goes in a run config.
    pub target: Target,
    /// Index of its axis.
    pub axis: usize,
    /// Index among the members of the axis.
    pub member: usize,
}

/// The lattice of settings.
#[derive(Debug)]
pub struct Space {
    axes: Vec<Axis>,
    columns: Vec<ParamColumn>,
    constraints: Vec<Constraint>,
    /// Points per step of each axis.
    strides: Vec<u128>,
    size: u128,
}

impl Space {
    /// The space over these axes, without constraints; none if it has more than [`MAX_POINTS`] points or an axis
    /// without values.
    pub fn new(axes: Vec<Axis>) -> Option<Self> {
        let mut strides = vec![1; axes.len()];
        let mut size = 1_u128;
        for (number, axis) in axes.iter().enumerate().rev() {
            strides[number] = size;
            size = size.checked_mul(u128::from(axis.len())).filter(|size| *size > 0)?;
        }
        let columns = axes
            .iter()
            .enumerate()
            .flat_map(|(number, axis)| {
                axis.members.iter().enumerate().map(move |(member, series)| ParamColumn {
                    name: series.name.clone(),
                    kind: series.column_kind(),
                    target: series.target.clone(),
                    axis: number,
                    member,
                })
            })
            .collect();
        Some(Self { axes, columns, constraints: Vec::new(), strides, size })
    }

    /// The same with these constraints, which are bound to its axes.
    #[must_use]
    pub fn with_constraints(mut self, constraints: Vec<Constraint>) -> Self {
        self.constraints = constraints;
        self
    }

    /// Axes in canonical order.
    pub fn axes(&self) -> &[Axis] {
        &self.axes
    }

    /// Columns of the results, in order.
    pub fn columns(&self) -> &[ParamColumn] {
        &self.columns
    }

    /// Constraints: the grid's, then the strategy's.
    pub fn constraints(&self) -> &[Constraint] {
        &self.constraints
    }

    /// Points of the lattice, feasible or not.
    pub fn size(&self) -> u128 {
        self.size
    }

    /// Axis and member of a name.
    pub fn find(&self, name: &str) -> Option<(usize, usize)> {
        self.columns.iter().find(|column| column.name == name).map(|column| (column.axis, column.member))
    }

    /// Value index per axis of a lattice point.
    pub fn value_index(&self, lattice_index: u128) -> Vec<u32> {
        // Divisions of 128 bits are dear, and few lattices need them.
        if let (Ok(index), Ok(_)) = (u64::try_from(lattice_index), u64::try_from(self.size)) {
            let of = |(axis, stride): (&Axis, &u128)| (index / *stride as u64 % u64::from(axis.len())) as u32;
            return self.axes.iter().zip(&self.strides).map(of).collect();
        }
        let of = |(axis, stride): (&Axis, &u128)| (lattice_index / stride % u128::from(axis.len())) as u32;
        self.axes.iter().zip(&self.strides).map(of).collect()
    }

    /// Number of the lattice point with these value indices.
    pub fn lattice_index(&self, value_index: &[u32]) -> u128 {
        value_index.iter().zip(&self.strides).map(|(k, stride)| u128::from(*k) * stride).sum()
    }

    /// The point satisfies every constraint.
    pub fn is_feasible(&self, value_index: &[u32]) -> bool {
        self.constraints.iter().all(|constraint| constraint.holds(value_index, &self.axes))
    }

    /// The setting of a lattice point under a trial number.
    pub fn setting(&self, trial: u64, lattice_index: u128) -> Setting {
        Setting { trial, lattice_index, value_index: self.value_index(lattice_index) }
    }

    /// Value of a setting in a column (an index into [`Self::columns`]); null outside.
    pub fn value(&self, setting: &Setting, column: usize) -> Value {
        let Some(column) = self.columns.get(column) else { return Value::Null };
        let k = setting.value_index.get(column.axis).copied().unwrap_or(u32::MAX);
        self.axes[column.axis].members[column.member].values.get(k)
    }

    /// Values of a setting, one per column.
    pub fn values(&self, setting: &Setting) -> Vec<Value> {
        (0..self.columns.len()).map(|column| self.value(setting, column)).collect()
    }

    /// Puts the values of a setting into a run config.
    pub fn apply(&self, setting: &Setting, config: &mut Value) {
        for (number, column) in self.columns.iter().enumerate() {
            put(config, &column.target, self.value(setting, number));
        }
    }

    /// What decides the settings and their order, in one canonical form: axes with names, targets and values, and the
    /// constraints of the grid. (Those of the strategy come with its version.)
    pub fn identity(&self) -> Value {
        let axes = self.axes.iter().map(|axis| {
            Value::Array(
                axis.members
                    .iter()
                    .map(|member| serde_json::json!({"name": member.name, "values": member.values.describe()}))
                    .collect(),
            )
        });
        let constraints = self
            .constraints
            .iter()
            .filter(|constraint| constraint.origin == constraint::Origin::Grid)
            .map(|constraint| Value::from(constraint.text.as_str()));
        serde_json::json!({"axes": axes.collect::<Vec<_>>(), "constraints": constraints.collect::<Vec<_>>()})
    }
}

/// Puts a value at its target, making the maps on the way; whatever else stands there gives way.
pub fn put(config: &mut Value, target: &Target, value: Value) {
    let mut at = config;
    for part in target.path() {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(map) = at else { return };
        at = map.entry(part).or_insert(Value::Null);
    }
    *at = value;
}

#[cfg(test)]
pub(crate) mod tests;
