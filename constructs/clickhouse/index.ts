export { ClickHouse, type ClickHouseProps, type ClickHouseRenderer } from './clickhouse.ts';
export type { ClickHouseUser } from './cluster.ts';
