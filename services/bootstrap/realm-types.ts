import { z } from 'zod';

/** A client that signs in with its own secret and acts as itself (OAuth 2.0 client credentials, RFC 6749 §4.4). */
const realmClient = z.strictObject({
  /** Its secret is the file CLIENTS_DIR/<clientId>/password. */
  clientId: z.string().min(1),
  description: z.string().optional(),
  /** The tenant that every token of this client names, in the claim `tenant`. Absent: none, and the gateway refuses it. */
  tenant: z.string().min(1).optional(),
  /** Who may accept its tokens: the claim `aud`. Empty: nobody but Keycloak itself. */
  audiences: z.array(z.string().min(1)),
  /** Life of its access tokens, in seconds. Default: the realm's. */
  accessTokenSeconds: z.number().int().min(30).optional(),
});

/** A Keycloak realm as data. What is absent here and managed by us is repaired; the rest of the realm is left alone. */
export const realmSchema = z.strictObject({
  name: z.string().regex(/^[a-z0-9-]+$/, 'must be a-z, 0-9 and -'),
  displayName: z.string().optional(),
  /** Life of access tokens, in seconds. */
  accessTokenSeconds: z.number().int().min(30).default(300),
  /** Idle and longest life of a user's session, in seconds. */
  sessionIdleSeconds: z.number().int().min(60).default(1800),
  sessionMaxSeconds: z.number().int().min(60).default(36_000),
  bruteForce: z
    .strictObject({
      /** Failed logins before the wait begins. */
      failures: z.number().int().min(1).default(10),
      /** The wait grows by this with every further failure, up to the longest, both in seconds. */
      waitSeconds: z.number().int().min(1).default(60),
      longestWaitSeconds: z.number().int().min(1).default(900),
    })
    .prefault({}),
  /** Services that accept tokens and never ask for one: bearer-only names for `aud`. */
  resourceServers: z.array(z.string().min(1)).default([]),
  clients: z.array(realmClient),
});

/** A realm as an author writes it: fields with a default may be left out. */
export type Realm = z.input<typeof realmSchema>;
export type RealmClient = z.input<typeof realmClient>;
/** A realm with every default resolved. */
export type ResolvedRealm = z.output<typeof realmSchema>;
