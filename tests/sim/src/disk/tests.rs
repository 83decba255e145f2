//! The disk loses exactly what it reports as lost.

use super::*;

fn written(disk: &SimDisk, offset: u64, byte: u8) {
    disk.write(offset, &[byte; 1_024]).unwrap();
}

#[test]
fn what_was_synced_survives_every_loss() {
    let disk = SimDisk::empty();
    disk.set_len(4_096).unwrap();
    written(&disk, 0, 1);
    disk.sync_data().unwrap();
    written(&disk, 1_024, 2);
    let platter = disk.platter();
    for loss in [Loss::Everything, Loss::AllBut(0), Loss::Sectors { seed: 3, garbage: true }] {
        let image = platter.image(loss);
        assert_eq!(image.len(), 4_096);
        assert!(image[..1_024].iter().all(|byte| *byte == 1), "{loss:?}");
    }
    assert!(platter.image(Loss::Everything)[1_024..].iter().all(|byte| *byte == 0));
    assert!(platter.image(Loss::Nothing)[1_024..2_048].iter().all(|byte| *byte == 2));
}

#[test]
fn unsynced_writes_are_lost_by_sectors() {
    let disk = SimDisk::empty();
    disk.write(0, &[7; 64 * SECTOR]).unwrap();
    let image = disk.platter().image(Loss::Sectors { seed: 1, garbage: false });
    let kept = image.chunks(SECTOR).filter(|sector| sector.iter().all(|byte| *byte == 7)).count();
    let lost = image.chunks(SECTOR).filter(|sector| sector.iter().all(|byte| *byte == 0)).count();
    assert_eq!(kept + lost, image.len().div_ceil(SECTOR), "no sector is torn");
    assert!(kept > 10 && lost > 10, "{kept} kept, {lost} lost");
}

#[test]
fn a_torn_sector_holds_old_and_new_bytes_and_no_others() {
    let disk = SimDisk::holding(vec![1; 64 * SECTOR]);
    disk.write(0, &[2; 64 * SECTOR]).unwrap();
    let image = disk.platter().image(Loss::Bytes { seed: 4 });
    assert!(image.iter().all(|byte| matches!(byte, 1 | 2)));
    let torn =
        image.chunks(SECTOR).filter(|sector| sector.contains(&1) && sector.contains(&2)).count();
    assert!(torn > 10, "{torn} of 64 are torn");
}

#[test]
fn what_was_lost_can_hold_zeros_or_garbage_but_not_in_the_first_page() {
    for (garbage, filling) in [(false, 0), (true, GARBAGE)] {
        let disk = SimDisk::holding(vec![1; 64 * SECTOR]);
        disk.write(0, &[2; 64 * SECTOR]).unwrap();
        let image = disk.platter().image(Loss::Filled { seed: 5, garbage });
        let (first, rest) = image.split_at(4_096);
        assert!(first.iter().all(|byte| matches!(byte, 1 | 2)));
        assert!(rest.contains(&2) && rest.contains(&filling) && !rest.contains(&1));
    }
}

#[test]
fn a_short_write_leaves_its_first_half_and_a_lost_sync_leaves_nothing() {
    let once = Fault { after: 0, forever: false };
    let disk = SimDisk::holding(vec![1; 8]);
    disk.fail_as(once, Failing::Short);
    assert!(disk.write(0, &[2; 4]).is_err());
    assert_eq!(disk.platter().image(Loss::Nothing), [2, 2, 1, 1, 1, 1, 1, 1]);
    disk.fail_as(once, Failing::LostSync);
    assert!(disk.sync_data().is_err() && disk.sync_data().is_ok());
    assert_eq!(disk.platter().image(Loss::Nothing), [1; 8], "the later sync did not bring it back");
    disk.fail_as(Fault { after: 0, forever: true }, Failing::Full);
    assert_eq!(disk.write(0, &[3]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(disk.read(0, &mut [0]).is_ok());
}

#[test]
fn a_failure_comes_once_or_stays() {
    let disk = SimDisk::empty();
    disk.fail(Fault { after: 1, forever: false });
    assert!(
        disk.write(0, &[1]).is_ok() && disk.write(0, &[2]).is_err() && disk.write(0, &[3]).is_ok()
    );
    disk.fail(Fault { after: 0, forever: true });
    assert!(disk.sync_data().is_err() && disk.write(0, &[4]).is_err() && disk.has_failed());
    assert!(disk.read(0, &mut [0]).is_err());
}
