//! The tables, one transaction at a time, and reading.
//!
//! Over an open database, which `file.rs` opens and shares. Beside the rows it keeps what each group holds, changed in the same
//! transactions. Errors are the database's own: what they mean is `file.rs`'s to say.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use redb::{
    AccessGuard, Database, Durability, Error, Key, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, TableError, Value, WriteTransaction,
};

use super::row::{Found, Row, Table, Total};

/// Where a row stands: its group and its key.
type Place = (&'static str, &'static [u8]);

type Rows<'a> = TableDefinition<'a, Place, &'static [u8]>;

/// Before every key.
const NOTHING: &[u8] = &[];

/// What each group holds: rows and weight.
const TOTALS: TableDefinition<'_, (&str, &str), (u64, u64)> = TableDefinition::new("totals");

/// Bytes of a row's weight, which stand before its body.
const WEIGHT: usize = size_of::<u32>();

fn rows(table: Table) -> Rows<'static> {
    TableDefinition::new(table.name())
}

/// Writes rows in their order, all or none, and waits until they are synced.
pub(super) fn write<'a>(database: &Database, changes: impl Iterator<Item = &'a Row>) -> Result<(), Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    write_rows(&transaction, changes)?;
    transaction.commit()?;
    Ok(())
}

/// The first rows of a group from a key on: one at least, and no more than so many rows and about so many bytes.
pub(super) fn read(
    database: &Database,
    table: Table,
    group: &str,
    from: &[u8],
    most: (usize, usize),
) -> Result<Vec<Found>, Error> {
    let Some(table) = open(database, rows(table))? else { return Ok(Vec::new()) };
    gather(table.range((group, from)..(&*after(group), NOTHING))?, most)
}

/// The last rows of a group before a key, backwards; as many as [`read`] gives.
pub(super) fn read_back(
    database: &Database,
    table: Table,
    group: &str,
    before: &[u8],
    most: (usize, usize),
) -> Result<Vec<Found>, Error> {
    let Some(table) = open(database, rows(table))? else { return Ok(Vec::new()) };
    gather(table.range((group, NOTHING)..(group, before))?.rev(), most)
}

/// What each group of a table holds.
pub(super) fn totals(database: &Database, table: Table) -> Result<Vec<(Arc<str>, Total)>, Error> {
    let mut found = Vec::new();
    let Some(totals) = open(database, TOTALS)? else { return Ok(found) };
    for entry in totals.range((table.name(), "")..)? {
        let (key, value) = entry?;
        let (name, group) = key.value();
        if name != table.name() {
            break;
        }
        let (rows, weight) = value.value();
        found.push((Arc::from(group), Total { rows, weight }));
    }
    Ok(found)
}

/// The last key of a group.
pub(super) fn last(database: &Database, table: Table, group: &str) -> Result<Option<Box<[u8]>>, Error> {
    let Some(table) = open(database, rows(table))? else { return Ok(None) };
    let last = table.range((group, NOTHING)..(&*after(group), NOTHING))?.next_back().transpose()?;
    Ok(last.map(|(place, _)| place.value().1.into()))
}

/// A table as it is now; none where nothing was ever written to it.
fn open<K: Key + 'static, V: Value + 'static>(
    database: &Database,
    definition: TableDefinition<'_, K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, Error> {
    match database.begin_read()?.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The first group after this one: this one with the smallest character behind it.
fn after(group: &str) -> String {
    format!("{group}\0")
}

/// The first of these rows: one at least where there is one, and no more than so many and about so many bytes.
fn gather<'a>(
    range: impl Iterator<Item = Result<(AccessGuard<'a, Place>, AccessGuard<'a, &'static [u8]>), StorageError>>,
    (most_rows, most_bytes): (usize, usize),
) -> Result<Vec<Found>, Error> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for row in range {
        if found.len() >= most_rows || (bytes > 0 && bytes >= most_bytes) {
            break;
        }
        let (place, value) = row?;
        let (weight, body) = split(value.value());
        bytes += body.len();
        found.push(Found { key: place.value().1.into(), weight, body: body.to_vec() });
    }
    Ok(found)
}

fn write_rows<'a>(transaction: &WriteTransaction, changes: impl Iterator<Item = &'a Row>) -> Result<(), Error> {
    let mut opened = HashMap::new();
    let mut changed: HashMap<(Table, &str), (i64, i64)> = HashMap::new();
    for row in changes {
        let at = row.place();
        let table = match opened.entry(at.table) {
            Entry::Occupied(table) => table.into_mut(),
            Entry::Vacant(place) => place.insert(transaction.open_table(rows(at.table))?),
        };
        let place = (&*at.group, &*at.key);
        let total = changed.entry((at.table, &at.group)).or_default();
        match row {
            Row::Put { weight, body, .. } => {
                let mut value = Vec::with_capacity(WEIGHT + body.len());
                value.extend_from_slice(&weight.to_le_bytes());
                value.extend_from_slice(body);
                total.0 += 1;
                total.1 += i64::from(*weight);
                if let Some(old) = table.insert(place, &*value)? {
                    total.0 -= 1;
                    total.1 -= i64::from(split(old.value()).0);
                }
            }
            Row::Delete { .. } => {
                if let Some(old) = table.remove(place)? {
                    total.0 -= 1;
                    total.1 -= i64::from(split(old.value()).0);
                }
            }
        }
    }
    let mut totals = transaction.open_table(TOTALS)?;
    for ((table, group), (rows, weight)) in changed {
        let place = (table.name(), group);
        let (had, weighed) = totals.get(place)?.map_or((0, 0), |value| value.value());
        match had.saturating_add_signed(rows) {
            0 => drop(totals.remove(place)?),
            rows => drop(totals.insert(place, (rows, weighed.saturating_add_signed(weight)))?),
        }
    }
    Ok(())
}

/// A row's weight and body. A value that is too short for a weight has none.
fn split(value: &[u8]) -> (u32, &[u8]) {
    value.split_first_chunk::<WEIGHT>().map_or((0, value), |(weight, body)| (u32::from_le_bytes(*weight), body))
}
