//! A titled grid, the same as text and as markup.

use super::markup::escaped;

/// Columns and rows; the first column names the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    /// What it shows.
    pub title: &'static str,
    /// The columns' names.
    pub columns: Vec<&'static str>,
    /// As many cells as columns each.
    pub rows: Vec<Vec<String>>,
    /// A sentence below it; may be empty.
    pub note: String,
}

impl Grid {
    /// For a terminal: every column as wide as its widest cell.
    pub fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.columns[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let cells = cells.zip(&widths).enumerate().map(|(at, (cell, width))| match at {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
        };
        let mut out = format!("\n{}\n", self.title);
        out.push_str(&line(&mut self.columns.iter().copied()));
        for row in &self.rows {
            out.push_str(&line(&mut row.iter().map(String::as_str)));
        }
        if !self.note.is_empty() {
            out.push_str(&format!("  {}\n", self.note));
        }
        out
    }

    /// For the page.
    pub fn html(&self) -> String {
        let heads = self.columns.iter().map(|name| format!("<th>{}</th>", escaped(name)));
        let mut out = format!(
            "<h2>{}</h2><div class=\"scroll\"><table><thead><tr>{}</tr></thead><tbody>\n",
            escaped(self.title),
            heads.collect::<String>()
        );
        for row in &self.rows {
            let cells = row.iter().map(|cell| format!("<td>{}</td>", escaped(cell)));
            out.push_str(&format!("<tr>{}</tr>\n", cells.collect::<String>()));
        }
        out.push_str(&format!(
            "</tbody></table></div><p class=\"soft\">{}</p>\n",
            escaped(&self.note)
        ));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_below_their_column_and_are_no_markup() {
        let grid = Grid {
            title: "t",
            columns: vec!["name", "n"],
            rows: vec![vec!["a".into(), "1,000".into()], vec!["<b>".into(), "2".into()]],
            note: String::new(),
        };
        assert_eq!(grid.text(), "\nt\n  name      n\n  a     1,000\n  <b>       2\n");
        assert!(grid.html().contains("<td>&lt;b&gt;</td>"));
    }
}
