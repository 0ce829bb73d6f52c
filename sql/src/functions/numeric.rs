//! Functions of numbers.

use deltaworks_dataflow::{DataType, Datum};

use crate::expr::arithmetic::{Fault, canonical, in_range, rescale};

/// Rounds half away from zero to a number of digits after the point (0).
pub(crate) fn round<'a>(args: &[Datum<'a>], from: &DataType, to: &DataType) -> Result<Datum<'a>, Fault> {
    let digits = match args.get(1) {
        Some(Datum::Int(digits)) => i32::try_from(*digits).map_err(|_| Fault)?,
        Some(_) => return Err(Fault),
        None => 0,
    };
    match (&args[0], from) {
        (Datum::Float(value), DataType::Float) => {
            let factor = 10f32.powi(digits);
            finite(f64::from((*value as f32 * factor).round() / factor))
        }
        (Datum::Float(value), _) => {
            let factor = 10f64.powi(digits);
            finite((*value * factor).round() / factor)
        }
        (Datum::Decimal(value), DataType::Decimal { scale, .. }) => {
            let scale = i32::from(*scale);
            if digits >= scale {
                return rescale(*value, scale, to).map(Datum::Decimal);
            }
            let at = DataType::Decimal { precision: 38, scale: i8::try_from(digits).map_err(|_| Fault)? };
            rescale(rescale(*value, scale, &at)?, digits, to).map(Datum::Decimal)
        }
        (Datum::Int(value), _) if digits >= 0 => Ok(Datum::Int(*value)),
        (Datum::Int(value), _) => {
            let at = DataType::Decimal { precision: 38, scale: i8::try_from(digits).map_err(|_| Fault)? };
            let whole = DataType::Decimal { precision: 38, scale: 0 };
            let value = rescale(rescale(i128::from(*value), 0, &at)?, digits, &whole)?;
            in_range(i64::try_from(value).map_err(|_| Fault)?, to).map(Datum::Int)
        }
        _ => Err(Fault),
    }
}
fn finite<'a>(value: f64) -> Result<Datum<'a>, Fault> {
    Ok(Datum::Float(canonical(value)))
}

/// The magnitude.
pub(crate) fn abs<'a>(value: &Datum<'a>, to: &DataType) -> Result<Datum<'a>, Fault> {
    Ok(match value {
        Datum::Int(value) => Datum::Int(in_range(value.checked_abs().ok_or(Fault)?, to)?),
        Datum::Decimal(value) => Datum::Decimal(value.checked_abs().ok_or(Fault)?),
        Datum::Float(value) => Datum::Float(value.abs()),
        _ => return Err(Fault),
    })
}
