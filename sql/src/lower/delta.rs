//! Recognises trees of inner equi-joins that are better done as one delta join: one path per input over shared indexes, with
//! no intermediate result kept.
//!
//! Equal keys form classes: `a.x = b.x AND b.x = c.x` lets a path go from `a` straight to `c`. Each hop looks its input up by
//! all classes that it shares with the inputs met before, or by its PRIMARY KEY alone where they cover it, since that index
//! is there already. What no hop has checked is checked at the end.

use super::join::joined_schema;
use super::unique::Columns;
use super::{JoinStrategy, PlanSettings, TableInfo, columns, lookback, project, terms, unique};
use crate::arrangement;
use crate::expr::{BinaryOp, ScalarExpr};
use crate::plan::{DeltaHop, DeltaJoin, Join, JoinKind, Node, Plan};

/// Rewrites a whole plan from the top, so that a tree of joins is seen as one.
pub(crate) fn recognise(
    mut plan: Plan,
    tables: &dyn TableInfo,
    settings: &PlanSettings,
    warnings: &mut Vec<String>,
) -> Plan {
    let forced = settings.strategy() == JoinStrategy::Delta;
    let mut used = false;
    if settings.strategy() != JoinStrategy::Linear {
        plan = rewrite(plan, tables, forced, &mut used);
    }
    if forced && !used {
        warnings.push("no delta join: the query has no inner join of tables by equal keys".into());
    }
    plan
}

fn rewrite(mut plan: Plan, tables: &dyn TableInfo, forced: bool, used: &mut bool) -> Plan {
    if let Some(tree) = Tree::of(&plan)
        && tree.inputs.len() >= if forced { 2 } else { 3 }
    {
        match tree.delta(tables, forced) {
            Ok(mut join) => {
                *used = true;
                join.schema = plan.schema.clone();
                plan = join;
            }
            Err(reason) => note(&mut plan, &reason),
        }
    }
    let inputs = match &mut plan.node {
        // The joins of the tree were looked at as part of it.
        Node::Join(join) if flattens(join) && Tree::of_join(join).inputs.len() > 2 => {
            return below(plan, tables, forced, used);
        }
        _ => plan.inputs_mut(),
    };
    for input in inputs {
        let own = std::mem::replace(input, nothing());
        *input = rewrite(own, tables, forced, used);
    }
    plan
}

/// Rewrites the inputs of a tree that stays a tree.
fn below(mut plan: Plan, tables: &dyn TableInfo, forced: bool, used: &mut bool) -> Plan {
    for input in plan.inputs_mut() {
        let own = std::mem::replace(input, nothing());
        let in_tree = matches!(&own.node, Node::Join(join) if flattens(join))
            || matches!(&own.node, Node::Project { input, .. } if matches!(&input.node, Node::Join(join) if flattens(join)));
        *input = if in_tree { below(own, tables, forced, used) } else { rewrite(own, tables, forced, used) };
    }
    plan
}

fn nothing() -> Plan {
    Plan::new(Node::Constant { rows: Vec::new() }, deltaworks_dataflow::Schema::default())
}

fn note(plan: &mut Plan, reason: &str) {
    if let Node::Join(join) = &mut plan.node
        && join.reason.is_empty()
    {
        join.reason = format!("no delta join: {reason}");
    }
}

fn flattens(join: &Join) -> bool {
    join.kind == JoinKind::Inner && !join.left_keys.is_empty() && !join.null_equal
}

/// A tree of inner joins. Everything is over the columns of all inputs, one after the other.
struct Tree {
    inputs: Vec<Plan>,
    equal: Vec<(ScalarExpr, ScalarExpr)>,
    residual: Vec<ScalarExpr>,
    /// What the tree's own columns are.
    output: Vec<ScalarExpr>,
}

impl Tree {
    fn of(plan: &Plan) -> Option<Tree> {
        match &plan.node {
            Node::Join(join) if flattens(join) => Some(Tree::of_join(join)),
            _ => None,
        }
    }
    fn of_join(join: &Join) -> Tree {
        let left = Tree::of_input(&join.left);
        let right = Tree::of_input(&join.right);
        let width = left.width();
        let shift = |e: &ScalarExpr| e.map_columns(&|c| c + width);
        let right_output: Vec<ScalarExpr> = right.output.iter().map(shift).collect();
        let mut equal = left.equal;
        equal.extend(right.equal.iter().map(|(a, b)| (shift(a), shift(b))));
        for (l, r) in join.left_keys.iter().zip(&join.right_keys) {
            equal.push((l.substitute(&left.output), r.substitute(&right_output)));
        }
        let mut output = left.output;
        output.extend(right_output);
        let mut residual = left.residual;
        residual.extend(right.residual.iter().map(shift));
        residual.extend(join.residual.iter().flat_map(terms::conjuncts).map(|e| e.substitute(&output)));
        let mut inputs = left.inputs;
        inputs.extend(right.inputs);
        Tree { inputs, equal, residual, output }
    }
    /// A further join, under a projection or not, or a leaf.
    fn of_input(plan: &Plan) -> Tree {
        match &plan.node {
            Node::Join(join) if flattens(join) => Tree::of_join(join),
            Node::Project { input, expressions } => match &input.node {
                Node::Join(join) if flattens(join) => {
                    let mut tree = Tree::of_join(join);
                    tree.output = expressions.iter().map(|e| e.substitute(&tree.output)).collect();
                    tree
                }
                _ => Tree::leaf(plan),
            },
            _ => Tree::leaf(plan),
        }
    }
    fn leaf(plan: &Plan) -> Tree {
        let output = columns(plan);
        Tree { inputs: vec![plan.clone()], equal: Vec::new(), residual: Vec::new(), output }
    }
    fn width(&self) -> usize {
        self.inputs.iter().map(|input| input.schema.len()).sum()
    }

    /// The input whose columns an expression uses, if it is just one.
    fn input_of(&self, expression: &ScalarExpr) -> Option<usize> {
        let used = terms::used(expression);
        let (first, last) = (used.first()?, used.last()?);
        let input = self.input_at(*first);
        (input == self.input_at(*last)).then_some(input)
    }
    fn input_at(&self, column: usize) -> usize {
        let mut end = 0;
        let at = self.inputs.iter().position(|input| {
            end += input.schema.len();
            column < end
        });
        at.unwrap_or(self.inputs.len())
    }
    fn start(&self, input: usize) -> usize {
        self.inputs[..input].iter().map(|input| input.schema.len()).sum()
    }

    /// The classes of equal expressions, each member with its input.
    fn classes(&self) -> Result<Vec<Vec<(usize, ScalarExpr)>>, String> {
        let mut classes: Vec<Vec<(usize, ScalarExpr)>> = Vec::new();
        for (left, right) in &self.equal {
            let member = |e: &ScalarExpr| {
                let input = self.input_of(e).ok_or_else(|| format!("the key \"{e}\" is over several inputs"))?;
                Ok::<_, String>((input, e.clone()))
            };
            let (left, right) = (member(left)?, member(right)?);
            let (with, without): (Vec<_>, Vec<_>) =
                classes.into_iter().partition(|class| class.contains(&left) || class.contains(&right));
            let mut class: Vec<(usize, ScalarExpr)> = with.into_iter().flatten().collect();
            for member in [left, right] {
                if !class.contains(&member) {
                    class.push(member);
                }
            }
            classes = without;
            classes.push(class);
        }
        Ok(classes)
    }

    fn delta(&self, tables: &dyn TableInfo, forced: bool) -> Result<Plan, String> {
        let classes = self.classes()?;
        let paths: Result<Vec<_>, String> = (0..self.inputs.len()).map(|start| self.path(start, &classes, tables)).collect();
        let paths = paths?;
        let made = self.made(&paths, tables);
        if !forced && made > 1 {
            return Err(format!("{made} indexes would have to be made for it, no more than one is worth it"));
        }
        let reason = match (forced, made) {
            (true, 0) => "asked for; all indexes are there already".to_string(),
            (true, n) => format!("asked for; {n} indexes are made for it"),
            (false, 0) => "all indexes are there already, and no intermediate result is kept".to_string(),
            (false, n) => format!("{n} index is made for it, and no intermediate result is kept"),
        };
        let schema = self
            .inputs
            .iter()
            .skip(1)
            .fold(self.inputs[0].schema.clone(), |schema, input| joined_schema(&schema, &input.schema, JoinKind::Inner));
        let residual = ScalarExpr::conjunction(self.residual.iter().cloned().chain(self.unchecked(&classes, &paths)));
        let join = DeltaJoin { inputs: self.inputs.clone(), paths, residual, reason };
        let plan = Plan::new(Node::DeltaJoin(Box::new(join)), schema);
        if lookback::is_identity(&self.output, &plan) {
            return Ok(plan);
        }
        let schema = plan.schema.clone();
        Ok(project(plan, self.output.clone(), schema))
    }

    /// From one input to all others: the next is one that is found by a unique key where there is one, else the first that
    /// shares a key with what was met.
    fn path(
        &self,
        start: usize,
        classes: &[Vec<(usize, ScalarExpr)>],
        tables: &dyn TableInfo,
    ) -> Result<Vec<DeltaHop>, String> {
        let mut met = vec![start];
        let mut path = Vec::new();
        while met.len() < self.inputs.len() {
            let hops: Vec<DeltaHop> = (0..self.inputs.len())
                .filter(|input| !met.contains(input))
                .filter_map(|input| self.hop(input, &met, classes, tables))
                .collect();
            let found_by_key = |hop: &&DeltaHop| {
                let keys = unique::plain_columns(&hop.target_keys);
                unique::is_unique(&self.inputs[hop.input], &keys, tables)
            };
            let next = hops.iter().find(found_by_key).or(hops.first()).cloned();
            let next = next.ok_or_else(|| "not every input is reached by equal keys".to_string())?;
            met.push(next.input);
            path.push(next);
        }
        Ok(path)
    }

    fn hop(
        &self,
        input: usize,
        met: &[usize],
        classes: &[Vec<(usize, ScalarExpr)>],
        tables: &dyn TableInfo,
    ) -> Option<DeltaHop> {
        let start = self.start(input);
        let mut keys: Vec<(ScalarExpr, ScalarExpr)> = Vec::new();
        for class in classes {
            let source = class.iter().find(|(at, _)| met.contains(at));
            let target = class.iter().find(|(at, _)| *at == input);
            if let (Some((_, source)), Some((_, target))) = (source, target) {
                keys.push((source.clone(), target.map_columns(&|c| c - start)));
            }
        }
        let targets: Vec<ScalarExpr> = keys.iter().map(|(_, target)| target.clone()).collect();
        if let Some(order) = arrangement::primary_key_order(&self.inputs[input], &targets, tables) {
            keys = order.into_iter().map(|at| keys[at].clone()).collect();
        }
        let (source_keys, target_keys): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
        (!source_keys.is_empty()).then_some(DeltaHop { input, source_keys, target_keys })
    }

    /// How many indexes the paths need that are not there.
    fn made(&self, paths: &[Vec<DeltaHop>], tables: &dyn TableInfo) -> usize {
        let mut made = Vec::new();
        for hop in paths.iter().flatten() {
            let needed = arrangement::of(&self.inputs[hop.input], &hop.target_keys, &[], tables);
            if !needed.exists && !made.contains(&needed.key) {
                made.push(needed.key);
            }
        }
        made.len()
    }

    /// Equalities of a class that some path does not enforce by its hops: those of further members in one input, and those of
    /// classes that a PRIMARY KEY made superfluous for the look-up.
    fn unchecked(&self, classes: &[Vec<(usize, ScalarExpr)>], paths: &[Vec<DeltaHop>]) -> Vec<ScalarExpr> {
        let mut residual = Vec::new();
        for class in classes {
            let (_, first) = &class[0];
            for (input, member) in &class[1..] {
                let start = self.start(*input);
                let own = member.map_columns(&|c| c - start);
                let is_first_of_input = class.iter().find(|(at, _)| at == input).is_some_and(|(_, e)| e == member);
                let checked = is_first_of_input
                    && paths.iter().enumerate().all(|(from, path)| self.enforces(from, path, class, *input, &own));
                if !checked {
                    residual.push(ScalarExpr::predicate(BinaryOp::Eq, first.clone(), member.clone()));
                }
            }
        }
        residual
    }

    /// Whether a path makes the member of `input` equal to the rest of its class: at the hop to it, or, where the path starts
    /// there, at the hops to all others.
    fn enforces(
        &self,
        from: usize,
        path: &[DeltaHop],
        class: &[(usize, ScalarExpr)],
        input: usize,
        own: &ScalarExpr,
    ) -> bool {
        let looks_up =
            |input: usize, key: &ScalarExpr| path.iter().any(|hop| hop.input == input && hop.target_keys.contains(key));
        if from != input {
            return looks_up(input, own);
        }
        let inputs: Columns = class.iter().map(|(at, _)| *at).filter(|at| *at != from).collect();
        inputs.into_iter().all(|at| {
            let start = self.start(at);
            let first = class.iter().find(|(have, _)| *have == at).map(|(_, e)| e.map_columns(&|c| c - start));
            first.is_some_and(|key| looks_up(at, &key))
        })
    }
}
