import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { type ClickHouseClient, ClickHouseLogLevel, type ClickHouseSettings, createClient } from '@clickhouse/client';
import { httpsUrl, text } from '@somagent/kit';
import { z } from 'zod';
import { type Columns, encodeNative } from './native.ts';

/** The variables of a connection to ClickHouse. */
export const clickHouseVariables = {
  CLICKHOUSE_URL: httpsUrl('the address of ClickHouse, e.g. https://clickhouse.local-data.svc:8443'),
  CLICKHOUSE_CREDENTIALS_DIR: text('the directory with the files username and password of this service'),
  CLICKHOUSE_CA_FILE: text('the PEM file of the authority that signed the certificate of ClickHouse'),
};

const schema = z.object(clickHouseVariables);
/** Where and as whom to connect. */
export type ClickHouseConfig = z.output<typeof schema>;

/** The database of this service; it owns everything in it. */
export const database = 'analytics';

/** Values of query parameters, `{name:Type}` in a statement. Text of a request goes nowhere else. */
export type Parameters = Readonly<Record<string, string | number | boolean | readonly string[] | readonly number[]>>;

/** A row as it is sent: column to value. */
export type Row = Readonly<Record<string, unknown>>;

/** Numbers come as numbers, times as ISO 8601. */
const reading: ClickHouseSettings = { output_format_json_quote_64bit_integers: 0, date_time_output_format: 'iso' };

/** ClickHouse over HTTPS. Credentials are read for each request, so that a rotated password needs no restart. */
export class Warehouse {
  readonly #config: ClickHouseConfig;
  readonly #client: ClickHouseClient;

  /** @throws Error when the file of the authority or the credentials can't be read. */
  constructor(config: ClickHouseConfig) {
    this.#config = config;
    this.#auth();
    this.#client = createClient({
      url: config.CLICKHOUSE_URL,
      tls: { ca_cert: readFileSync(config.CLICKHOUSE_CA_FILE) },
      application: 'somagent-analytics',
      request_timeout: 30_000,
      max_open_connections: 16,
      // Errors are thrown, and logged where they are handled.
      log: { level: ClickHouseLogLevel.OFF },
    });
  }

  /**
   * Rows that a statement gives.
   * @param tenant whose rows ClickHouse shows to the user who may only select, `*` for everybody's; without it none
   * @throws ClickHouseError
   */
  async rows<Found = Row>(query: string, parameters: Parameters = {}, tenant?: string): Promise<readonly Found[]> {
    const result = await this.#client.query({
      query,
      query_params: { ...parameters },
      format: 'JSONEachRow',
      clickhouse_settings: tenant === undefined ? reading : { ...reading, log_comment: tenant },
      auth: this.#auth(),
    });
    return result.json<Found>();
  }

  /** Runs a statement that gives nothing. @throws ClickHouseError */
  async run(query: string, parameters: Parameters = {}): Promise<void> {
    await this.#client.command({ query, query_params: { ...parameters }, auth: this.#auth() });
  }

  /**
   * Stores rows as one block.
   * @param token rows that came under the same token before, into the same partition of the table, are not stored again
   */
  async insert(table: string, rows: readonly Row[], token?: string): Promise<void> {
    await this.#client.insert({
      table: `${database}.${table}`,
      values: rows,
      format: 'JSONEachRow',
      // Answered when it is stored. One block: a token names a block, and a batch is far below what would be cut.
      clickhouse_settings: {
        async_insert: 0,
        ...(token === undefined
          ? { insert_deduplicate: 0 }
          : { insert_deduplicate: 1, insert_deduplication_token: token }),
      },
      auth: this.#auth(),
    });
  }

  /**
   * Stores rows as one block, as {@link insert} does, in the format that costs ClickHouse least.
   * @throws RangeError when a value is beyond what its column takes
   */
  async insertColumns(table: string, columns: Columns, rows: readonly Row[], token: string): Promise<void> {
    const { stream } = await this.#client.exec({
      query: `insert into ${database}.${table} (${Object.keys(columns).join(', ')}) format Native`,
      values: Readable.from([encodeNative(columns, rows)], { objectMode: false }),
      clickhouse_settings: { async_insert: 0, insert_deduplicate: 1, insert_deduplication_token: token },
      auth: this.#auth(),
    });
    // The answer is empty; read to its end, its connection is used again.
    await finished(stream.resume());
  }

  /** @throws Error when ClickHouse does not answer. */
  async check(): Promise<void> {
    await this.rows('select 1');
  }

  async close(): Promise<void> {
    await this.#client.close();
  }

  #auth(): { readonly username: string; readonly password: string } {
    const file = (name: string) => readFileSync(join(this.#config.CLICKHOUSE_CREDENTIALS_DIR, name), 'utf8').trim();
    return { username: file('username'), password: file('password') };
  }
}
