import { sql } from 'kysely';
import type { Database } from './database.ts';
import { rowsOf, type Scope } from './scope.ts';

/** The most words of a question that are looked for. */
const longestQuestion = 32;

/** Of BM25, with the usual constants: texts are short, so a word counts once, however often it stands there. */
const [k1, b] = [1.2, 0.75];

/**
 * Ids of memories of a scope that have words of the question, best first, by BM25 within the scope: rare words count
 * more, and the words of a short text too. Any word counts, since a question is no list of what must be there.
 * Source: Robertson, Zaragoza: The Probabilistic Relevance Framework, 2009.
 * @throws the error of the database.
 */
export async function keywordSearch(
  database: Database,
  scope: Scope,
  question: string,
  limit: number,
): Promise<readonly string[]> {
  const { rows } = await sql<{ id: string }>`
    with words as materialized (
      -- Quoted as a tsquery wants it: a word is never an operator.
      select word, ('''' || replace(replace(word, '\\', '\\\\'), '''', '''''') || '''')::tsquery as asked
      from unnest(tsvector_to_array(to_tsvector('english', ${question}))) word limit ${longestQuestion}
    ), scoped as materialized (
      select id, created_at, search, length(search) as size from memory where ${rowsOf(scope)} and duplicate_of is null
    ), average as materialized (
      select count(*) as memories, greatest(avg(size), 1) as size from scoped
    ), hits as materialized (
      select id, created_at, scoped.size, word from scoped join words on search @@ asked
    ), rarity as (
      select word, ln(1 + (memories - count(*) + 0.5) / (count(*) + 0.5)) as weight
      from hits, average group by word, memories
    )
    select id from hits join rarity using (word), average
    group by id, created_at, hits.size, average.size
    order by sum(weight) / (1 + ${k1}::float8 * (1 - ${b}::float8 + ${b}::float8 * hits.size / average.size)) desc, created_at desc, id
    limit ${limit}`.execute(database.of(scope.tenant));
  return rows.map(({ id }) => id);
}
