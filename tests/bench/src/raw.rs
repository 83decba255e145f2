//! The floor under every durable write: the same bytes appended to a file, then `fdatasync`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use crate::peer::{Failure, Peer};
use crate::sample::{Event, Sample};

const NOT_A_STORE: Failure =
    Failure::Wrong { peer: "a bare file", what: "is asked for what only a store does" };

pub(crate) struct Raw {
    file: File,
}

impl Raw {
    pub(crate) fn open(folder: &Path) -> Result<Self, Failure> {
        Ok(Self { file: OpenOptions::new().append(true).create(true).open(folder.join("raw"))? })
    }
}

fn append(file: &mut File, records: &[Sample]) -> Result<(), Failure> {
    let bytes: Vec<u8> =
        records.iter().flat_map(|record| record.id.bytes().chain(record.json.bytes())).collect();
    file.write_all(&bytes)?;
    Ok(file.sync_data()?)
}

impl Peer for Raw {
    fn rest(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn write(&mut self, record: &Sample) -> Result<(), Failure> {
        append(&mut self.file, std::slice::from_ref(record))
    }

    fn write_in_one_commit(&mut self, records: &[Sample]) -> Result<(), Failure> {
        append(&mut self.file, records)
    }

    fn write_from_threads(&mut self, slices: &[&[Sample]]) -> Result<(), Failure> {
        let file = Mutex::new(&mut self.file);
        crate::threads::run(slices, |record| {
            append(
                &mut file.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
                std::slice::from_ref(record),
            )
        })
    }

    fn read_each(&mut self, _: &[&str], _: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        Err(NOT_A_STORE)
    }

    fn page(&mut self, _: &str, _: u32, _: &mut dyn FnMut(&str, &str)) -> Result<(), Failure> {
        Err(NOT_A_STORE)
    }

    fn look_at_each(&mut self, _: &[&str], _: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        Err(NOT_A_STORE)
    }

    fn look_at_page(
        &mut self,
        _: &str,
        _: u32,
        _: &mut dyn FnMut(&str, &str),
    ) -> Result<(), Failure> {
        Err(NOT_A_STORE)
    }

    fn page_of_stage(
        &mut self,
        _: &str,
        _: usize,
        _: u32,
        _: &mut dyn FnMut(&str, &str),
    ) -> Result<(), Failure> {
        Err(NOT_A_STORE)
    }

    fn apply(&mut self, page: &[Sample], _: u32) -> Result<(), Failure> {
        append(&mut self.file, page)
    }

    fn load(&mut self, _: &mut dyn Iterator<Item = Event>) -> Result<(), Failure> {
        Err(NOT_A_STORE)
    }

    fn ways_to_rebuild(&self) -> &'static [&'static str] {
        &[]
    }

    fn rebuild(&mut self, _: &'static str) -> Result<(), Failure> {
        Err(NOT_A_STORE)
    }

    fn verify(&mut self) -> Result<(), Failure> {
        Err(NOT_A_STORE)
    }
}
