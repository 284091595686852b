//! A finished run read back: its leaderboard as a table, single rows, a row walked again.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use engine::Error;
use optimizer::atomic::FileError;
use optimizer::cli::rows::describe;
use optimizer::error::CommandError;
use optimizer::replay::{Provenance, ReplayError, replay as walk};
use optimizer::stored::StoredRun;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3_arrow::error::PyArrowResult;

use crate::bars::{Bars, stream};
use crate::boundary::{detached, refused, told};
use crate::run::{included, sources};

/// Rows in memory that others read where they are, through the Arrow C stream.
#[pyclass(frozen, module = "omega_bt")]
pub(crate) struct Table {
    batches: Vec<RecordBatch>,
    schema: SchemaRef,
}

#[pymethods]
impl Table {
    /// Names of the columns.
    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn __len__(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyArrowResult<Bound<'py, PyCapsule>> {
        stream(py, self.batches.clone(), &self.schema, requested_schema)
    }
}

/// Reads a Parquet file of a run folder into memory.
#[pyfunction]
pub(crate) fn read_table(py: Python<'_>, path: PathBuf) -> PyResult<Table> {
    detached(py, || read(&path))?.map_err(|error| match refused(&error) {
        Err(error) => error,
        Ok(_) => pyo3::exceptions::PyOSError::new_err(error.to_string()),
    })
}

fn read(path: &Path) -> Result<Table, CommandError> {
    let unreadable = |error: parquet::errors::ParquetError| FileError::parquet(path, "read it", error);
    let file = File::open(path).map_err(|error| FileError::io(path, "open it", error))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(unreadable)?;
    let schema = builder.schema().clone();
    let batches = builder.with_batch_size(65_536).build().map_err(unreadable)?;
    let batches = batches.collect::<Result<Vec<_>, _>>().map_err(|error| unreadable(error.into()))?;
    Ok(Table { batches, schema })
}

/// One row of a run folder by its ID, as JSON text: its place, its setting, every metric.
#[pyfunction]
pub(crate) fn row(py: Python<'_>, folder: PathBuf, id: &str) -> PyResult<String> {
    told(detached(py, || {
        let run = StoredRun::open(&folder)?;
        let found = run.find(id)?;
        Ok(describe(&run, &found).to_string())
    })?)
}

/// Walks one row of a run folder again; returns its success document, or the error document.
#[pyfunction]
#[pyo3(signature = (folder, id, *, bars = None, include = None, output_dir = None))]
pub(crate) fn replay(
    py: Python<'_>,
    folder: PathBuf,
    id: &str,
    bars: Option<Vec<Py<Bars>>>,
    include: Option<Vec<String>>,
    output_dir: Option<PathBuf>,
) -> PyResult<String> {
    let include = included(include.as_deref())?;
    let sources = sources(bars);
    told(detached(py, || {
        let run = StoredRun::open(&folder)?;
        let found = run.find(id)?;
        let config = run.configs().full(&found.setting).map_err(Error::Config)?;
        let (environment, warnings) = run.environment(&sources)?;
        let warnings: Vec<String> = warnings.iter().chain(environment.warnings()).cloned().collect();
        let rng_seed = found.row.rng_seed;
        let prepared = environment.prepare(&config, rng_seed)?;
        let replayed = walk(&prepared)?;
        let provenance = Provenance { config: &config, source: None, rng_seed, environment: &environment };
        let target = output_dir.map(|root| root.join(provenance.run_id()));
        let document = replayed.with_documents(&prepared, provenance, |documents| {
            if let Some(target) = &target {
                engine::backtest::artefact::write_folder(target, documents)?;
            }
            engine::backtest::result::success_document(documents, include, &warnings, None)
        });
        Ok(document.map_err(ReplayError::from)?)
    })?)
}

/// Run config of one row with the seed in force, as JSON text.
#[pyfunction]
pub(crate) fn row_config(py: Python<'_>, folder: PathBuf, id: &str) -> PyResult<String> {
    told(detached(py, || {
        let run = StoredRun::open(&folder)?;
        let found = run.find(id)?;
        let mut document = run.configs().full(&found.setting).map_err(Error::Config)?.document;
        document["rng_seed"] = found.row.rng_seed.into();
        Ok(document.to_string())
    })?)
}
