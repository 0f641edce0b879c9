//! The data sets that are read from a folder, under the names that their files have at UCI.

use std::{fs, path::Path};

use super::{
    Problem,
    lines::{Header, Layout, Separator, Source},
};
use crate::common::Result;

/// Nine of the paper's fifteen. Columns and classes are those of the files; where a file has several columns that may be a
/// class, it is the one that its page names as such or, for the customers, the channel.
const SOURCES: [Source; 9] = [
    Source {
        name: "Votes",
        files: &["house-votes-84.data"],
        rows: 232,
        classes: 2,
        layout: Layout { class: 0, ..Layout::commas(16) },
    },
    Source {
        name: "WPBC",
        files: &["wpbc.data"],
        rows: 194,
        classes: 2,
        layout: Layout { class: 1, unread: &[0], ..Layout::commas(33) },
    },
    Source {
        name: "Banknote",
        files: &["data_banknote_authentication.txt"],
        rows: 1372,
        classes: 2,
        layout: Layout::commas(4),
    },
    Source {
        name: "Wholesale",
        files: &["Wholesale customers data.csv"],
        rows: 440,
        classes: 2,
        layout: Layout { header: Header::Line, class: 0, ..Layout::commas(7) },
    },
    Source {
        name: "Vertebral",
        files: &["column_3C.dat"],
        rows: 310,
        classes: 3,
        layout: Layout { separator: Separator::Spaces, ..Layout::commas(6) },
    },
    Source {
        name: "User Knowledge",
        files: &["Training_Data.csv", "Test_Data.csv"],
        rows: 403,
        classes: 4,
        layout: Layout { header: Header::Line, notes: true, ..Layout::commas(5) },
    },
    Source {
        name: "Phishing",
        files: &["PhishingData.arff"],
        rows: 1353,
        classes: 3,
        layout: Layout { header: Header::Arff, ..Layout::commas(9) },
    },
    Source {
        name: "Breast Tissue",
        files: &["BreastTissue.csv"],
        rows: 106,
        classes: 6,
        layout: Layout { header: Header::Line, class: 1, unread: &[0], notes: true, ..Layout::commas(9) },
    },
    Source {
        name: "Forest",
        files: &["training.csv", "testing.csv"],
        rows: 523,
        classes: 4,
        layout: Layout { header: Header::Line, class: 0, ..Layout::commas(27) },
    },
];

/// UCI has two of them as spreadsheets: which sheets are to be saved under the names above.
const SPREADSHEETS: [(&str, &str, &str); 2] = [
    (
        "User Knowledge",
        "Data_User_Modeling_Dataset_Hamdi Tolga KAHRAMAN.xls",
        "its sheets Training_Data and Test_Data as Training_Data.csv and Test_Data.csv",
    ),
    ("Breast Tissue", "BreastTissue.xls", "its sheet Data as BreastTissue.csv"),
];

/// The sets whose files are in the folder, and a line for each of the others. An error where there is none, or where a file
/// does not hold what it should.
pub fn folder(path: &Path) -> Result<(Vec<Problem>, Vec<String>)> {
    if !path.is_dir() {
        return Err(format!("--data {}: no such folder", path.display()).into());
    }
    let (mut problems, mut missing) = (vec![], vec![]);
    for source in &SOURCES {
        let absent: Vec<&str> = source.files.iter().copied().filter(|file| !path.join(file).is_file()).collect();
        let sheet = SPREADSHEETS.iter().find(|(name, file, _)| *name == source.name && path.join(file).is_file());
        match sheet {
            Some((name, file, how)) if !absent.is_empty() => {
                missing.push(format!("{name}: {file} is a spreadsheet, save {how}"));
            }
            _ if !absent.is_empty() => missing.push(format!("{}: no file {}", source.name, absent.join(", "))),
            _ => {
                let text = |file: &&str| {
                    let path = path.join(file);
                    let bytes = fs::read(&path).map_err(|why| format!("{}: {why}", path.display()))?;
                    // some of the older files are not UTF-8; their numbers are ASCII in any case
                    Ok((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()))
                };
                problems.push(source.read(&source.files.iter().map(text).collect::<Result<Vec<_>>>()?)?);
            }
        }
    }
    if problems.is_empty() {
        return Err(format!("--data {}: none of the data sets is there. {}", path.display(), missing.join("; ")).into());
    }
    Ok((problems, missing))
}
