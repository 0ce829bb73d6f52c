//! Renders the first rows of each partition.

use deltaworks_dataflow::{Diff, Row, Time};
use deltaworks_operators::top_k::{Ranking as RankingSpec, TopK as TopKSpec, top_k};
use differential_dataflow::VecCollection;

use super::Renderer;
use super::layout::Layout;
use super::shape::{Direction, Exiting, Shape};
use crate::expr::ScalarExpr;
use crate::plan::{Ranking, TopK};

impl<'s> Renderer<'_, '_, 's> {
    pub(super) fn top_k<D: Exiting>(&mut self, node: &TopK, shape: Shape) -> VecCollection<'s, Time, D, Diff> {
        let arity = node.input.schema.len();
        let columns = arity + usize::from(node.emit_rank);
        // All columns stand in the value, so that ties break by the whole row.
        let types = node.input.schema.types();
        let whole: Vec<ScalarExpr> = (0..arity).map(|c| ScalarExpr::column(c, types[c].clone())).collect();
        let layout = Layout { key: node.partition.clone(), value: whole };
        let arranged = self.arrange(&node.input, layout, &node.order, "TopK");
        let order_fields: usize = node.order.iter().map(|k| Direction::of(k).fields()).sum();
        let first = node.partition.len() + order_fields;
        let mut compiled = shape.compile(columns, first + columns, &|column| first + column, &self.errors);
        let spec = TopKSpec {
            offset: usize::try_from(node.offset).unwrap_or(usize::MAX),
            limit: node.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            ranking: match node.ranking {
                Ranking::RowNumber => RankingSpec::RowNumber,
                Ranking::Rank => RankingSpec::Rank,
                Ranking::DenseRank => RankingSpec::DenseRank,
            },
            order_fields,
            emit_rank: node.emit_rank,
        };
        let emit_rank = node.emit_rank;
        top_k(arranged, spec, "TopK", move |key, value, rank| {
            if emit_rank {
                let rank = Row::pack([deltaworks_dataflow::Datum::Int(rank)]);
                compiled.apply(&[key, value, &rank], 1)
            } else {
                compiled.apply(&[key, value], 1)
            }
        })
    }
}
