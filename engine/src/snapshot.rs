//! Tables as the batch engine sees them: a schema to plan with, and the rows of one tick while a query runs.

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use deltaworks_dataflow::Schema;

/// A table or view of the catalog, for the batch engine.
#[derive(Debug)]
pub(crate) struct SnapshotTable {
    schema: SchemaRef,
    rows: Mutex<Vec<RecordBatch>>,
}

impl SnapshotTable {
    pub(crate) fn new(schema: &Schema) -> Arc<Self> {
        Arc::new(SnapshotTable { schema: Arc::new(schema.to_arrow()), rows: Mutex::default() })
    }
    /// Puts the rows of a tick in place, or none.
    pub(crate) fn set(&self, rows: Vec<RecordBatch>) {
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = rows;
    }
}

#[async_trait::async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
    fn table_type(&self) -> TableType {
        TableType::Base
    }
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let table = MemTable::try_new(Arc::clone(&self.schema), vec![rows])?;
        table.scan(state, projection, filters, limit).await
    }
}
