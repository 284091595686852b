//! Parquet files of a run: their settings, named in full so that bytes do not follow a default of the library, and
//! their columns, encoded on several threads where that pays. Equal rows give equal bytes either way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::atomic::{AtomicFile, FileError};

/// Files of up to this many rows are not compressed: the hundred columns of a small file cost more to set up the
/// compressor for than the disk gains.
pub(crate) const UNCOMPRESSED_ROWS: u64 = 4096;

/// A Parquet file on its way; whole or absent.
pub(crate) struct ParquetFile<'a> {
    path: PathBuf,
    schema: SchemaRef,
    writer: SerializedFileWriter<AtomicFile>,
    columns: ArrowRowGroupWriterFactory,
    pool: Option<&'a ThreadPool>,
    groups: usize,
}

impl<'a> ParquetFile<'a> {
    /// Starts a file of about `rows` rows, whose columns are encoded by the threads of `pool`. `statistics`: the file
    /// is for others to query.
    pub(crate) fn create(
        path: &Path,
        schema: &SchemaRef,
        rows: u64,
        statistics: bool,
        metadata: Vec<KeyValue>,
        pool: Option<&'a ThreadPool>,
    ) -> Result<Self, FileError> {
        let failed = |e| FileError::parquet(path, "write it", e);
        let parquet_schema = ArrowSchemaConverter::new().convert(schema).map_err(failed)?;
        let properties = Arc::new(properties(schema, rows, statistics, metadata));
        let file = AtomicFile::create(path)?;
        let writer = SerializedFileWriter::new(file, parquet_schema.root_schema_ptr(), properties).map_err(failed)?;
        let columns = ArrowRowGroupWriterFactory::new(&writer, Arc::clone(schema));
        Ok(Self { path: path.to_owned(), schema: Arc::clone(schema), writer, columns, pool, groups: 0 })
    }

    /// Appends `batch` as one row group.
    pub(crate) fn write_group(&mut self, batch: &RecordBatch) -> Result<(), FileError> {
        self.append(batch).map_err(|e| FileError::parquet(&self.path, "write it", e))
    }

    fn append(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        let writers = self.columns.create_column_writers(self.groups)?;
        let columns: Vec<(ArrowColumnWriter, (&Arc<Field>, &ArrayRef))> =
            writers.into_iter().zip(self.schema.fields().iter().zip(batch.columns())).collect();
        let encoded: Vec<ArrowColumnChunk> = match self.pool {
            Some(pool) => pool.install(|| columns.into_par_iter().map(encode).collect::<Result<_, _>>())?,
            None => columns.into_iter().map(encode).collect::<Result<_, _>>()?,
        };
        let mut group = self.writer.next_row_group()?;
        for column in encoded {
            column.append_to_row_group(&mut group)?;
        }
        group.close()?;
        self.groups += 1;
        Ok(())
    }

    /// Ends the file, flushes it to disk and puts it in its place.
    pub(crate) fn commit(self) -> Result<(), FileError> {
        let file = self.writer.into_inner().map_err(|e| FileError::parquet(&self.path, "write it", e))?;
        file.commit()
    }
}

fn encode(
    (mut writer, (field, array)): (ArrowColumnWriter, (&Arc<Field>, &ArrayRef)),
) -> Result<ArrowColumnChunk, ParquetError> {
    for leaf in compute_leaves(field, array)? {
        writer.write(&leaf)?;
    }
    writer.close()
}

/// Numbers are written as they are: metrics hardly repeat, and looking for repetitions is dear.
fn properties(schema: &SchemaRef, rows: u64, statistics: bool, metadata: Vec<KeyValue>) -> WriterProperties {
    // Level 1 exists, so the fallback never shows.
    let zstd = Compression::ZSTD(ZstdLevel::try_new(1).unwrap_or_default());
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by("omega-opt".to_owned())
        .set_compression(if rows > UNCOMPRESSED_ROWS { zstd } else { Compression::UNCOMPRESSED })
        .set_statistics_enabled(if statistics { EnabledStatistics::Chunk } else { EnabledStatistics::None })
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(Some(usize::MAX))
        .set_key_value_metadata(Some(metadata));
    for field in schema.fields() {
        let repeats = *field.data_type() == DataType::Utf8 && !field.name().ends_with("_hash");
        if repeats {
            builder = builder.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), true);
        }
    }
    builder.build()
}
