//! Reads the statements and the tables.

use super::super::statements::ALL;
use super::super::{Postgres, PostgresUrl};
use super::cluster;

/// The tables whose rows belong to tenants.
const OF_TENANTS: [&str; 8] =
    ["tenant", "record", "entity", "part", "unit", "device", "anchor", "head"];

/// Returns the places where a table of tenants is named, each with the name it has in the statement.
fn named(sql: &str) -> Vec<(&str, Option<String>)> {
    let words: Vec<&str> = sql.split_whitespace().collect();
    let mut named = Vec::new();
    for (place, word) in words.iter().enumerate() {
        let Some(table) = word.trim_matches(['(', ')', ',']).strip_prefix("fieldbook.") else {
            continue;
        };
        if OF_TENANTS.contains(&table) {
            let is_insert = place > 0 && words[place - 1] == "into";
            let alias = words.get(place + 1).map(|word| word.trim_matches([')', ',']).to_owned());
            named.push((table, alias.filter(|_| !is_insert)));
        }
    }
    named
}

/// A tenant's rows can be on one machine and another tenant's on another one, because no statement
/// needs the rows of two.
#[test]
fn every_statement_binds_each_table_of_tenants_to_the_one_tenant_that_it_is_given() {
    let mut checked = 0;
    for (name, sql) in ALL {
        for (table, alias) in named(sql) {
            checked += 1;
            match alias {
                Some(alias) => {
                    let bound = format!("{alias}.tenant = $1");
                    assert!(sql.contains(&bound), "{name}: {table} as {alias} is not bound\n{sql}");
                }
                None => {
                    let into = sql.split(&format!("into fieldbook.{table} (tenant,")).nth(1);
                    let into = into.unwrap_or_else(|| panic!("{name}: into {table}\n{sql}"));
                    let rest = into.split_once(')').unwrap().1.trim_start();
                    assert!(
                        rest.starts_with("select $1,") || rest.starts_with("values ($1,"),
                        "{name}: {table} is given another tenant: {rest}"
                    );
                }
            }
        }
        assert!(!sql.contains("tenant <>") && !sql.contains("tenant in"), "{name}");
    }
    assert!(checked > 25, "{checked}");
}

#[test]
fn no_statement_leaves_anything_in_the_session() {
    for (name, sql) in ALL {
        let text = sql.to_lowercase();
        for word in ["prepare", "listen", "declare", "temporary", "advisory", "discard"] {
            assert!(!text.contains(word), "{name}: {word}");
        }
        assert_eq!(
            text.matches("set local ").count(),
            text.matches("timeout = ").count(),
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_and_every_index_of_a_table_of_tenants_begins_with_the_tenant() {
    let Some(cluster) = cluster::shared() else { return };
    let name = cluster.database().await;
    drop(Postgres::open(&PostgresUrl::parse(&cluster.url(&name)).unwrap()).await.unwrap());
    let client = cluster.client(&name).await;
    let rows = client
        .query(
            "select c.relname::text, i.relname::text, a.attname::text, x.indisprimary \
             from pg_index x join pg_class c on c.oid = x.indrelid \
             join pg_class i on i.oid = x.indexrelid \
             join pg_namespace n on n.oid = c.relnamespace \
             join pg_attribute a on a.attrelid = c.oid and a.attnum = x.indkey[0] \
             where n.nspname = 'fieldbook'",
            &[],
        )
        .await
        .unwrap();
    let mut primary = Vec::new();
    for row in rows {
        let (table, index, first): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        if OF_TENANTS.contains(&table.as_str()) {
            assert_eq!(first, "tenant", "{index} of {table}");
            primary.extend(row.get::<_, bool>(3).then_some(table));
        } else {
            assert!(["store", "signing_key"].contains(&table.as_str()), "{table}");
        }
    }
    primary.sort();
    let mut expected = OF_TENANTS;
    expected.sort_unstable();
    assert_eq!(primary, expected);
}
