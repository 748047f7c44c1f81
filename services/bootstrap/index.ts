export type { DatabasesPlan } from './database/databases.ts';
export type { Realm, RealmClient } from './realm-types.ts';
export type { SecretsPlan } from './secrets/plan.ts';
