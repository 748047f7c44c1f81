import { type RawBuilder, sql } from 'kysely';
import type { Database } from './database.ts';
import { rowsOf, type Scope } from './scope.ts';

/** The most words of a question that are looked for. */
const longestQuestion = 32;

/** Of BM25, with the usual constants: texts are short, so a word counts once, however often it stands there. */
const [k1, b] = [1.2, 0.75];

/** Limits of a search by words. */
export interface KeywordLimits {
  /** The largest scope that is read whole, memories; in a larger one the index over words leads. */
  readonly wholeScope: number;
  /** In a larger scope: the most memories that are ranked, and from which number on a word is common. */
  readonly candidates: number;
  /** In a larger scope: the words that count, the rarest ones. */
  readonly words: number;
}

/** A scope of 7,000 took 25 to 30 ms read whole and 36 to 46 by the index, at load 7. */
export const keywordLimits: KeywordLimits = { wholeScope: 8000, candidates: 1000, words: 8 };

/**
 * Ids of memories of a scope that have words of the question, best first, by BM25 within the scope: rare words count
 * more, and the words of a short text too. Any word counts, since a question is no list of what must be there.
 * A scope above the limits is searched by an index over tenant and words: whatever has a rare word of the question is
 * ranked, and of what has common ones only, first what has most of them, up to the limit.
 * Source: Robertson, Zaragoza: The Probabilistic Relevance Framework, 2009.
 * @throws the error of the database.
 */
export async function keywordSearch(
  database: Database,
  scope: Scope,
  question: string,
  limit: number,
  limits: KeywordLimits = keywordLimits,
): Promise<readonly string[]> {
  const rows = database.of(scope.tenant);
  const { rows: found } = await smallScope(scope, question, limit, limits).execute(rows);
  if (found[0]?.large === true)
    return (await largeScope(scope, question, limit, limits).execute(rows)).rows.map(({ id }) => id);
  return found.flatMap(({ id }) => id ?? []);
}

/** Rows that answer for themselves. */
const counting = (scope: Scope) => sql`${rowsOf(scope)} and duplicate_of is null`;

/** Words of a question, as a tsquery each. Quoted as a tsquery wants it: a word is never an operator. */
const wordsOf = (question: string) => sql`
  select ('''' || replace(replace(word, '\\', '\\\\'), '''', '''''') || '''')::tsquery as word
  from unnest(tsvector_to_array(to_tsvector('english', ${question}))) word limit ${longestQuestion}`;

/** What a hit counts: `weight` of its words and `size` against the `average`. */
const bm25 = sql`weight / (1 + ${k1}::float8 * (1 - ${b}::float8 + ${b}::float8 * hits.size / average.size))`;

/** Reads the whole scope once, and so finds out whether it is a small one; of a large one it says only that. */
const smallScope = (
  scope: Scope,
  question: string,
  limit: number,
  { wholeScope }: KeywordLimits,
): RawBuilder<{ id: string | null; large: boolean }> => sql`
  with counted as materialized (
    select count(*) as memories from (select 1 from memory where ${counting(scope)} limit ${wholeScope + 1}) some_rows
  ), scoped as materialized (
    select id, created_at, search, length(search) as size from memory
    where (select memories <= ${wholeScope}::integer from counted) and ${counting(scope)}
  ), average as materialized (
    select memories, greatest((select avg(size) from scoped), 1)::float8 as size from counted
  ), words as materialized (${wordsOf(question)}), matches as materialized (
    select id, created_at, scoped.size, word from scoped join words on search @@ word
  ), rarity as (
    select word, ln(1 + (memories - count(*) + 0.5) / (count(*) + 0.5))::float8 as weight
    from matches, average group by word, memories
  ), hits as (
    select id, created_at, size, sum(weight) as weight from matches join rarity using (word) group by id, created_at, size
  )
  select id, memories > ${wholeScope}::integer as large from average left join hits on true
  order by ${bm25} desc nulls last, created_at desc, id limit ${limit}`;

/**
 * Reads what the index over words gives, set by set, until there are enough candidates. The sets have no memory in
 * common and are, from the rarest word on: all that has the word and no rarer one; of a common word first what has the
 * next ones too. `memory_ask` opens the door for one set; the words in the WHERE say the same once more.
 */
const largeScope = (
  scope: Scope,
  question: string,
  limit: number,
  { candidates, words }: KeywordLimits,
): RawBuilder<{ id: string }> => sql`
  with words as materialized (${wordsOf(question)}), counted as materialized (
    select word, found from (select memory_ask(word) as word from words offset 0) asked cross join lateral (
      select count(*) as found from (
        select 1 from memory_by_words where search @@ word and ${counting(scope)} limit ${candidates}
      ) some_rows
    ) count
  ), ranked as materialized (
    select word, found, found >= ${candidates}::integer as common, row_number() over (order by found, word) as place
    from counted where found > 0 order by place limit ${words}
  ), sets as materialized (
    select first.place, last.place as until, (
      select string_agg(case when place between first.place and last.place then '' else '!' end || word::text, ' & ')::tsquery
      from ranked where place <= last.place + first.common::integer
    ) as words
    from ranked first join ranked last
      on last.place = first.place or (first.common and last.place > first.place)
    order by first.place, last.place desc
  ), matches as materialized (
    select id, created_at, search, length(search) as size
    from (select memory_ask(words) as words from sets offset 0) asked cross join lateral (
      select id, created_at, search from memory_by_words where search @@ words and ${counting(scope)} limit ${candidates}
    ) some_rows limit ${candidates}
  ), average as materialized (
    select greatest(avg(size), 1)::float8 as size from matches
  ), hits as (
    select id, created_at, size, (
      select sum(ln(1 + total / found)) from ranked where search @@ word
    ) as weight from matches, (select greatest(reltuples, 1)::float8 as total from pg_class where oid = 'memory'::regclass) rows
  )
  select id from hits, average order by ${bm25} desc, created_at desc, id limit ${limit}`;
