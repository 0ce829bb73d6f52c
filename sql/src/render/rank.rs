//! Renders the first rows of each partition.

use deltaworks_dataflow::arrange::as_rows;
use deltaworks_dataflow::{Arranged, Collection, Diff, Row, Time};
use deltaworks_operators::consolidate::consolidate;
use deltaworks_operators::top_k::{Ranking as RankingSpec, TopK as TopKSpec, top_k};
use differential_dataflow::VecCollection;

use super::Renderer;
use super::layout::Layout;
use super::shape::{Direction, Exiting, Shape};
use crate::lower::columns;
use crate::plan::{Ranking, TopK};

impl<'s> Renderer<'_, '_, 's> {
    pub(super) fn top_k<D: Exiting>(&mut self, node: &TopK, shape: Shape) -> VecCollection<'s, Time, D, Diff> {
        let columns = node.input.schema.len() + usize::from(node.emit_rank);
        let arranged = self.arrange_partitions(node);
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
    /// The first row of each partition, and by partition how many rows are left out.
    pub(super) fn first_rows(&mut self, node: &TopK) -> (Collection<'s>, Collection<'s>) {
        let arranged = self.arrange_partitions(node);
        let all = as_rows(arranged.clone(), |key, _| Row::from_bytes(key));
        let first = top_k(arranged, TopKSpec::first(), "FirstOfKey", |key, row, _| {
            Some((Row::from_bytes(key), Row::from_bytes(row)))
        });
        let taken = first.clone().map(|(key, _)| key);
        (first.map(|(_, row)| row), consolidate(all.concat(taken.negate()), "LeftOut"))
    }
    fn arrange_partitions(&mut self, node: &TopK) -> Arranged<'s> {
        // All columns stand in the value, so that ties break by the whole row.
        let layout = Layout { key: node.partition.clone(), value: columns(&node.input) };
        self.arrange(&node.input, layout, &node.order, "TopK")
    }
}
