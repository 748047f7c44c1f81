export { Database, type DatabaseProps } from './database.ts';
export { Postgres, type PostgresProps } from './postgres.ts';
