import { type ClickHouseClient, ClickHouseError, ClickHouseLogLevel, createClient } from '@clickhouse/client';
import type { NodeClickHouseClientConfigOptions } from '@clickhouse/client/dist/config.js';
import { authorityOf, type TestClickHouse, type TestClickHouseUser } from './testing.ts';

/** The official client as one user. */
export async function clientOf(
  server: TestClickHouse,
  { username, password }: Pick<TestClickHouseUser, 'username' | 'password'>,
  options: NodeClickHouseClientConfigOptions = {},
): Promise<ClickHouseClient> {
  return createClient({
    url: server.url,
    username,
    password,
    database: server.database,
    tls: { ca_cert: await authorityOf(server) },
    // The errors that tests expect would fill the output.
    log: { level: ClickHouseLogLevel.OFF },
    ...options,
  });
}

/** Rows of a query, as objects. */
export async function rows<T>(
  client: ClickHouseClient,
  query: string,
  query_params: Record<string, unknown> = {},
): Promise<T[]> {
  return (await client.query({ query, query_params, format: 'JSONEachRow' })).json<T>();
}

/** The code of the error that this ends with, as ClickHouse numbers them; 0 when it succeeds. */
export async function codeOf(work: () => Promise<unknown>): Promise<number> {
  try {
    await work();
    return 0;
  } catch (error) {
    if (error instanceof ClickHouseError) return Number(error.code);
    throw error;
  }
}
