//! `datafusion_batch SQL DATA`: recomputes a query from nothing with DataFusion alone, on one thread.
//!
//! SQL is a file of `CREATE TABLE` statements and one query behind them. Each table is filled from `DATA/<table>.ndjson` or
//! `DATA/<table>.parquet`.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use clap::Parser;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use deltaworks_benches::Result;
use deltaworks_benches::answer::Answer;
use deltaworks_benches::measure::Measured;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Recomputes a query from nothing with DataFusion alone.
#[derive(Parser)]
struct Arguments {
    /// The tables and the query.
    sql: PathBuf,
    /// The folder with a file per table.
    data: PathBuf,
    /// Fail unless the answer's hash is this one.
    #[arg(long)]
    expect: Option<String>,
}

fn main() -> Result<()> {
    let start = Instant::now();
    let arguments = Arguments::parse();
    let text = std::fs::read_to_string(&arguments.sql)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let (records, loaded, batches) = runtime.block_on(answer(&text, &arguments.data, start))?;
    let measured = Measured::of_this_process(start)?;
    let mut answer = Answer::default();
    for batch in &batches {
        add(&mut answer, batch)?;
    }
    let (rows, hash) = answer.rows_and_hash()?;
    let figures = measured.with_records(records);
    println!("datafusion_batch: {figures} load_s={loaded:.3} rows={rows} answer={hash}");
    match arguments.expect {
        Some(expected) if expected != hash => Err(format!("the answer is {hash}, not {expected}").into()),
        _ => Ok(()),
    }
}

/// How many records were read, after how many seconds, and the query's answer.
async fn answer(text: &str, data: &Path, start: Instant) -> Result<(u64, f64, Vec<RecordBatch>)> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let statements: Vec<&str> = text.split(";\n").collect();
    let (query, tables) = statements.split_last().ok_or("there is no query")?;
    let mut records = 0;
    for table in tables {
        context.sql(table).await?.collect().await?;
    }
    for name in context.catalog("datafusion").and_then(|c| c.schema("public")).ok_or("no tables")?.table_names() {
        // DataFusion keeps names as they were declared; quotes keep them so here.
        let quoted = format!("\"{name}\"");
        let schema = Arc::clone(context.table(&quoted).await?.schema().inner());
        let batches = load(&data.join(&name), schema)?;
        records += batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        let schema = batches.first().map(RecordBatch::schema).ok_or_else(|| format!("{name} is empty"))?;
        context.deregister_table(&quoted)?;
        context.register_table(&quoted, Arc::new(MemTable::try_new(schema, vec![batches])?))?;
    }
    let loaded = start.elapsed().as_secs_f64();
    Ok((records, loaded, context.sql(query).await?.collect().await?))
}

/// The rows of `<path>.parquet` as they are, or else those of `<path>.ndjson` by the schema.
fn load(path: &Path, schema: SchemaRef) -> Result<Vec<RecordBatch>> {
    let parquet = path.with_extension("parquet");
    if parquet.exists() {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(parquet)?)?.with_batch_size(8192).build()?;
        return Ok(reader.collect::<std::result::Result<_, _>>()?);
    }
    let path = path.with_extension("ndjson");
    let file = File::open(&path).map_err(|error| format!("could not open {}: {error}", path.display()))?;
    let reader = arrow::json::ReaderBuilder::new(schema).with_batch_size(8192).build(BufReader::new(file))?;
    Ok(reader.collect::<std::result::Result<_, _>>()?)
}

/// Adds the rows of a batch, their values with `|` between them.
fn add(answer: &mut Answer, batch: &RecordBatch) -> Result<()> {
    let options = FormatOptions::default();
    let columns = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    for row in 0..batch.num_rows() {
        let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
        answer.add(&values.join("|"), 1);
    }
    Ok(())
}
