import { TenantDatabase } from '@somagent/kit';
import type pg from 'pg';
import type { Session } from './facts.ts';

/** Sessions with their owners: where their truth is. */
export interface Sessions {
  all(): AsyncIterable<Session>;
  /** One session; undefined when it is not there. */
  session(tenant: string, sessionId: string): Promise<Session | undefined>;
}

/** What this service may read of the database `sessions`. */
interface Tables {
  readonly session: {
    readonly tenant: string;
    readonly id: string;
    readonly subject: string;
    readonly teams: readonly string[];
    readonly created_at: Date;
  };
}

const columns = ['tenant', 'id', 'subject', 'teams', 'created_at'] as const;
const page = 1000;
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The database of sessions, read with a role that sees who owns them and no word of them. */
export class StoredSessions implements Sessions {
  readonly #db: TenantDatabase<Tables>;

  constructor(pool: pg.Pool) {
    this.#db = new TenantDatabase<Tables>(pool);
  }

  async *all(): AsyncGenerator<Session> {
    for (let last: { readonly tenant: string; readonly id: string } | undefined; ; ) {
      const after = last;
      const rows = await this.#db.platform
        .selectFrom('session')
        .select(columns)
        .$if(after !== undefined, (query) =>
          query.where(({ eb, refTuple, tuple }) =>
            eb(refTuple('tenant', 'id'), '>', tuple(after?.tenant ?? '', after?.id ?? '')),
          ),
        )
        .orderBy('tenant')
        .orderBy('id')
        .limit(page)
        .execute();
      yield* rows.map(sessionOf);
      last = rows.at(-1);
      if (rows.length < page) return;
    }
  }

  async session(tenant: string, sessionId: string): Promise<Session | undefined> {
    if (!uuid.test(sessionId)) return undefined;
    const row = await this.#db.platform
      .selectFrom('session')
      .select(columns)
      .where('tenant', '=', tenant)
      .where('id', '=', sessionId)
      .executeTakeFirst();
    return row && sessionOf(row);
  }

  /** @throws the error of Postgres when it does not answer. */
  async check(): Promise<void> {
    await this.#db.platform.selectFrom('session').select('id').limit(1).execute();
  }

  async close(): Promise<void> {
    await this.#db.destroy();
  }
}

const sessionOf = ({ tenant, id, subject, teams }: Pick<Tables['session'], 'tenant' | 'id' | 'subject' | 'teams'>) => ({
  tenant,
  sessionId: id,
  owner: subject,
  teams,
});
