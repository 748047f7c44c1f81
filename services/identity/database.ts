import type { QuotaTables } from '@somagent/governance/quota-migration.ts';
import type { TenantDatabase } from '@somagent/kit';
import type { Generated } from 'kysely';

/** Whether a tenant or an account may act. */
export type Standing = 'active' | 'suspended';

/** One row per tenant. */
export interface TenantTable {
  tenant: string;
  display_name: string;
  standing: Generated<Standing>;
  /** All its agent work is stopped by the kill switch. */
  halted: Generated<boolean>;
  training: Generated<'locked' | 'unlocked'>;
  created_at: Generated<Date>;
}

/** One row per team of a tenant. */
export interface TeamTable {
  tenant: string;
  name: string;
  created_at: Generated<Date>;
}

/** What an account is: a person, or a client that acts as itself. */
export type AccountKind = 'user' | 'service-account';

/** One row per person and per service account. The credentials are Keycloak's and nowhere here. */
export interface AccountTable {
  tenant: string;
  /** `sub` of its tokens: Keycloak's id of the user, of the service account's user where it is a client. */
  id: string;
  kind: AccountKind;
  /** Unique in the realm. Of a service account: its client's id. */
  username: string;
  email: string | null;
  roles: string[];
  teams: string[];
  standing: Generated<Standing>;
  created_at: Generated<Date>;
}

/** One row per API key. The secret is nowhere: only its SHA-256. */
export interface ApiKeyTable {
  tenant: string;
  id: string;
  owner: string;
  name: string;
  scopes: string[];
  secret_hash: Buffer;
  created_at: Generated<Date>;
  expires_at: Date;
  revoked_at: Date | null;
}

/** One row per proposal to unlock training. */
export interface TrainingProposalTable {
  tenant: string;
  id: string;
  proposed_by: string;
  reason: string;
  status: Generated<'open' | 'approved' | 'withdrawn' | 'expired'>;
  created_at: Generated<Date>;
  expires_at: Date;
  decided_by: string | null;
}

/** Credentials that are no longer accepted, until they would have expired by themselves. */
export interface RevocationTable {
  tenant: string;
  kind: 'session' | 'token' | 'key';
  id: string;
  expires_at: Date;
}

/** One row: what the control feed counts by, and the switch for everything. */
export interface ControlTable {
  single: Generated<boolean>;
  revision: string;
  halted: boolean;
}

/** The tables of the database `identity`. */
export interface Tables extends QuotaTables {
  tenant: TenantTable;
  team: TeamTable;
  account: AccountTable;
  api_key: ApiKeyTable;
  training_proposal: TrainingProposalTable;
  revocation: RevocationTable;
  control: ControlTable;
}

/** The database `identity`; each connection has a tenant, and row-level security keeps it to that one. */
export type Database = TenantDatabase<Tables>;
