//! What a change envelope of Debezium does, in whatever format it is written.
//!
//! | `op` | gives |
//! |---|---|
//! | `c`, `r` | upsert of `after` |
//! | `u` | upsert of `after`; first a delete of the old key where it changed, or the old image taken back where the table wants it |
//! | `d` | delete by key: of `before`, else of the record's key; without a key, `before` taken back |
//! | `t` | rejected: a truncated table is not emptied yet |
//! | `m` | ignored and counted |
//!
//! A tombstone deletes its key once more, which changes nothing, unless compaction already removed the delete before it; where it
//! cannot say a key it is ignored. Columns that images leave open are filled from the record's key.

use deltaworks_dataflow::row::is_null_field;

use super::Reject;
use super::json::Field;
use super::parse;
use crate::decode::{Slots, Target};

/// Reads the images of a row.
pub(crate) trait Images<I> {
    /// Puts the fields of an image into their slots.
    fn read(&mut self, image: I, slots: &mut Slots) -> Result<(), Reject>;
    /// The columns.
    fn fields(&self) -> &[Field];
}

/// Turns an envelope into commands.
pub(crate) fn apply<I: Copy>(
    images: &mut impl Images<I>,
    op: &str,
    before: Option<I>,
    after: Option<I>,
    target: &mut Target<'_>,
) -> Result<(), Reject> {
    match op {
        "c" | "r" => insert(images, after, target),
        "u" => update(images, before, after, target),
        "d" => delete(images, before, target),
        "t" => Err(Reject::field("op", "the table was truncated, which is not carried over yet")),
        "m" => {
            target.ignore();
            Ok(())
        }
        other => Err(Reject::field("op", format!("unknown operation \"{}\"", parse::quoted(other)))),
    }
}
/// A row that was flattened on its way.
pub(crate) fn flattened<I: Copy>(
    images: &mut impl Images<I>,
    row: I,
    deleted: bool,
    target: &mut Target<'_>,
) -> Result<(), Reject> {
    if deleted {
        read_old(images, row, target)?;
        if !target.has_old_key() {
            return target.delete_by_record_key();
        }
        target.delete_old_key()?;
        return Ok(());
    }
    images.read(row, target.slots())?;
    target.fill_from_key()?;
    let (slots, old) = target.both_slots();
    old.clear();
    fill_unavailable(slots, old, images.fields())?;
    target.upsert()
}
/// A record without a value.
pub(crate) fn tombstone(target: &mut Target<'_>) -> Result<(), Reject> {
    let deletes = target.has_key() && !target.wants_old_images() && target.delete_by_record_key().is_ok();
    if !deletes {
        target.ignore();
    }
    Ok(())
}
/// A record that is no envelope.
pub(crate) fn no_envelope() -> Reject {
    Reject::field("op", "no change envelope: the operation is missing")
}

fn read_old<I>(images: &mut impl Images<I>, before: I, target: &mut Target<'_>) -> Result<(), Reject> {
    let (_, old) = target.both_slots();
    old.clear();
    images.read(before, old).map_err(|reject| Reject { reason: format!("before: {}", reject.reason), ..reject })?;
    target.fill_old_from_key()
}
fn read_new<I>(images: &mut impl Images<I>, after: Option<I>, target: &mut Target<'_>) -> Result<(), Reject> {
    let Some(after) = after else { return Err(Reject::field("after", "the new image is missing")) };
    images.read(after, target.slots())?;
    target.fill_from_key()
}
fn update<I: Copy>(
    images: &mut impl Images<I>,
    before: Option<I>,
    after: Option<I>,
    target: &mut Target<'_>,
) -> Result<(), Reject> {
    if let Some(before) = before {
        read_old(images, before, target)?;
    } else if !target.has_key() {
        return Err(Reject::field("before", "an update of a table without a key needs the old image"));
    } else {
        target.both_slots().1.clear();
    }
    read_new(images, after, target)?;
    let (slots, old) = target.both_slots();
    fill_unavailable(slots, old, images.fields())?;
    if before.is_some() {
        if target.wants_old_images() {
            target.retract_old()?;
        } else if target.key_changes() {
            target.delete_old_key()?;
        }
    }
    target.upsert()
}
fn insert<I: Copy>(images: &mut impl Images<I>, after: Option<I>, target: &mut Target<'_>) -> Result<(), Reject> {
    read_new(images, after, target)?;
    let (slots, old) = target.both_slots();
    old.clear();
    fill_unavailable(slots, old, images.fields())?;
    target.upsert()
}
fn delete<I: Copy>(images: &mut impl Images<I>, before: Option<I>, target: &mut Target<'_>) -> Result<(), Reject> {
    match before {
        Some(before) => read_old(images, before, target)?,
        None => target.both_slots().1.clear(),
    }
    if before.is_some() && target.wants_old_images() {
        target.retract_old()
    } else if target.has_old_key() {
        target.delete_old_key()?;
        Ok(())
    } else if target.has_key() {
        target.delete_by_record_key()
    } else {
        Err(Reject::field("before", "a delete from a table without a key needs the old image"))
    }
}

/// Takes values that were left out from the old image. NULL there is not trusted: a value that was left out is not NULL.
fn fill_unavailable(slots: &mut Slots, old: &Slots, fields: &[Field]) -> Result<(), Reject> {
    for column in slots.unavailable().to_vec() {
        if slots.field(column).is_some() {
            continue;
        }
        match old.field(column).filter(|field| !is_null_field(field)) {
            Some(field) => slots.put_encoded(column, field),
            None => {
                let name = fields.iter().find(|field| field.slot == column).map_or("", |field| field.name.as_str());
                let reason = "the database left the unchanged value out; set REPLICA IDENTITY FULL on its table";
                return Err(Reject::field(name, reason));
            }
        }
    }
    Ok(())
}
