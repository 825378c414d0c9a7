//! The file: its tables, one transaction at a time, and reading.
//!
//! Blocks on the disk. Used by `mod.rs` for reading and by `writer.rs` for writing. Beside the rows it keeps what each group
//! holds, changed in the same transactions.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};

use super::row::{Found, Row, Table, Total};

/// The file's name in the state directory.
const NAME: &str = "state.redb";

/// Memory for pages of the file, in bytes.
const CACHE_BYTES: usize = 4 << 20;

type Rows<'a> = TableDefinition<'a, (&'static str, &'static [u8]), &'static [u8]>;

/// What each group holds: rows and weight.
const TOTALS: TableDefinition<'_, (&str, &str), (u64, u64)> = TableDefinition::new("totals");

/// Bytes of a row's weight, which stand before its body.
const WEIGHT: usize = size_of::<u32>();

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("{} cannot be opened", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: redb::DatabaseError,
    },
    /// The writer's thread does not start.
    #[error("the thread that writes the store does not start")]
    Thread(#[source] io::Error),
    /// The file cannot be read or written.
    #[error("{} cannot be used", .path.display())]
    Use {
        /// The file.
        path: PathBuf,
        /// Why.
        source: redb::Error,
    },
}

/// The file.
pub(super) struct File {
    path: PathBuf,
    database: Database,
}

fn rows(table: Table) -> Rows<'static> {
    TableDefinition::new(table.name())
}

impl File {
    pub(super) fn open(state_dir: &Path) -> Result<File, StoreError> {
        let path = state_dir.join(NAME);
        let opened = Database::builder().set_cache_size(CACHE_BYTES).create(&path);
        match opened {
            Ok(database) => Ok(File { path, database }),
            Err(source) => Err(StoreError::Open { path, source }),
        }
    }

    #[cfg(test)]
    pub(super) fn in_memory() -> Result<File, StoreError> {
        let path = PathBuf::from("memory");
        let opened = Database::builder().create_with_backend(redb::backends::InMemoryBackend::new());
        opened.map(|database| File { path: path.clone(), database }).map_err(|source| StoreError::Open { path, source })
    }

    /// Writes rows in their order, all or none, and waits until they are synced.
    pub(super) fn write<'a>(&self, changes: impl Iterator<Item = &'a Row>) -> Result<(), StoreError> {
        self.try_write(changes).map_err(|source| self.failed(source))
    }

    fn try_write<'a>(&self, changes: impl Iterator<Item = &'a Row>) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        write_rows(&transaction, changes)?;
        transaction.commit()?;
        Ok(())
    }

    pub(super) fn read(
        &self,
        table: Table,
        group: &str,
        from: &[u8],
        most: (usize, usize),
    ) -> Result<Vec<Found>, StoreError> {
        self.try_read(table, group, from, most).map_err(|source| self.failed(source))
    }

    fn try_read(
        &self,
        table: Table,
        group: &str,
        from: &[u8],
        (most_rows, most_bytes): (usize, usize),
    ) -> Result<Vec<Found>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let mut found = Vec::new();
        let table = match transaction.open_table(rows(table)) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(found),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = 0;
        for row in table.range((group, from)..)? {
            let (place, value) = row?;
            let (owner, key) = place.value();
            if owner != group || found.len() >= most_rows || (bytes > 0 && bytes >= most_bytes) {
                break;
            }
            let (weight, body) = split(value.value());
            bytes += body.len();
            found.push(Found { key: key.into(), weight, body: body.to_vec() });
        }
        Ok(found)
    }

    pub(super) fn read_back(
        &self,
        table: Table,
        group: &str,
        before: &[u8],
        most: (usize, usize),
    ) -> Result<Vec<Found>, StoreError> {
        self.try_read_back(table, group, before, most).map_err(|source| self.failed(source))
    }

    fn try_read_back(
        &self,
        table: Table,
        group: &str,
        before: &[u8],
        (most_rows, most_bytes): (usize, usize),
    ) -> Result<Vec<Found>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let mut found = Vec::new();
        let table = match transaction.open_table(rows(table)) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(found),
            Err(error) => return Err(error.into()),
        };
        let (none, mut bytes): (&[u8], usize) = (&[], 0);
        for row in table.range((group, none)..(group, before))?.rev() {
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

    pub(super) fn totals(&self, table: Table) -> Result<Vec<(Arc<str>, Total)>, StoreError> {
        self.try_totals(table).map_err(|source| self.failed(source))
    }

    fn try_totals(&self, table: Table) -> Result<Vec<(Arc<str>, Total)>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let mut found = Vec::new();
        let totals = match transaction.open_table(TOTALS) {
            Ok(totals) => totals,
            Err(TableError::TableDoesNotExist(_)) => return Ok(found),
            Err(error) => return Err(error.into()),
        };
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

    pub(super) fn last(&self, table: Table, group: &str) -> Result<Option<Box<[u8]>>, StoreError> {
        self.try_last(table, group).map_err(|source| self.failed(source))
    }

    fn try_last(&self, table: Table, group: &str) -> Result<Option<Box<[u8]>>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let table = match transaction.open_table(rows(table)) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The first group after this one is this one with the smallest character behind it.
        let after = format!("{group}\0");
        let none: &[u8] = &[];
        let last = table.range((group, none)..(after.as_str(), none))?.next_back().transpose()?;
        Ok(last.map(|(place, _)| place.value().1.into()))
    }

    fn failed(&self, source: redb::Error) -> StoreError {
        StoreError::Use { path: self.path.clone(), source }
    }
}

fn write_rows<'a>(transaction: &WriteTransaction, changes: impl Iterator<Item = &'a Row>) -> Result<(), redb::Error> {
    let mut opened = HashMap::new();
    let mut changed: HashMap<(Table, &str), (i64, i64)> = HashMap::new();
    for row in changes {
        let (Row::Put { at, .. } | Row::Delete { at }) = row;
        if !opened.contains_key(&at.table) {
            opened.insert(at.table, transaction.open_table(rows(at.table))?);
        }
        let Some(table) = opened.get_mut(&at.table) else { continue };
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
