import { sql } from 'kysely';
import type { Database } from './database.ts';
import { rowsOf, type Scope } from './scope.ts';

/** The most words of a question that are looked for. */
const longestQuestion = 32;

/**
 * Ids of memories of a scope that have words of the question, best first. Any word counts, since questions are no lists
 * of what must be there; rarer words of a text count by its length.
 * @throws the error of the database.
 */
export async function keywordSearch(
  database: Database,
  scope: Scope,
  question: string,
  limit: number,
): Promise<readonly string[]> {
  const { rows } = await sql<{ id: string }>`
    with words as (
      -- Quoted as a tsquery wants it: a word is never an operator.
      select string_agg('''' || replace(replace(word, '\\', '\\\\'), '''', '''''') || '''', ' | ')::tsquery as asked
      from (
        select word from unnest(tsvector_to_array(to_tsvector('english', ${question}))) word limit ${longestQuestion}
      ) listed
    )
    select id from memory, words
    where ${rowsOf(scope)} and duplicate_of is null and search @@ asked
    order by ts_rank_cd(search, asked, 1 | 4) desc, created_at desc, id
    limit ${limit}`.execute(database.of(scope.tenant));
  return rows.map(({ id }) => id);
}
