//! The four records of the first-touch workload, borrowed from their JSON lines.

use serde::Deserialize;

/// A line of `event.ndjson`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Event<'a> {
    /// Unique, but for events that are delivered again.
    pub event_id: &'a str,
    /// Whose event it is.
    pub customer_id: &'a str,
    /// `view`, `click`, ..
    pub event_type: &'a str,
    /// A number, as text.
    pub campaign_id: &'a str,
    /// Milliseconds since 1970.
    pub event_ts: i64,
}

/// A line of `sale_order.ndjson`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Order<'a> {
    /// Unique.
    pub order_id: &'a str,
    /// Who ordered.
    pub customer_id: &'a str,
    /// With two digits behind the point.
    pub total_amount: f64,
    /// Milliseconds since 1970.
    pub order_ts: i64,
}

impl Order<'_> {
    /// The amount in cents.
    pub fn cents(&self) -> i64 {
        (self.total_amount * 100.0).round() as i64
    }
}

/// A line of `customer.ndjson`: a version of a customer.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Customer<'a> {
    /// The key.
    pub customer_id: &'a str,
    /// `new`, `vip`, ..
    pub segment: &'a str,
    /// `seo`, `email`, ..
    pub acquisition_channel: &'a str,
    /// Milliseconds since 1970; grows from version to version.
    pub last_purchase_ts: i64,
}

/// A line of `campaign.ndjson`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Campaign<'a> {
    /// The key.
    pub id: i64,
    /// The name.
    pub name: &'a str,
}
