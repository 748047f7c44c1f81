import { randomUUID } from 'node:crypto';
import { decodeJwt } from 'jose';
import { loginAs, type Person } from '../../attacks/world.ts';
import { address, tokenOf } from '../../support/session-api.ts';
import type { Answered, KeyMaker } from './load.ts';

/** A person signs in again at this age of the token, milliseconds; it lives five minutes. */
const freshMs = 200_000;

/** An agent asks anew at this age of the token, milliseconds; it lives fifteen minutes. */
const lastingMs = 600_000;

/** Tokens of the agent whose tokens outlive an outage of Keycloak. */
export function lastingToken(): () => Promise<string> {
  let token = tokenOf('lasting-agent');
  let since = performance.now();
  return () => {
    if (performance.now() - since > lastingMs) {
      token = tokenOf('lasting-agent');
      since = performance.now();
    }
    return token;
  };
}

/** API keys of a tenant, made by its administrator, whose token is kept fresh while Keycloak can be reached. */
export function keyMaker(tenant: string): KeyMaker {
  const accounts = address('SOMA_ACCOUNTS_URL', 'accountsUrl');
  let person: Person | undefined;
  let since = 0;
  const access = async (): Promise<string | undefined> => {
    if (person !== undefined && performance.now() - since < freshMs) return person.access;
    person = await loginAs(`${tenant}-admin-1`).catch(() => undefined);
    since = performance.now();
    return person?.access;
  };
  const post = async (token: string, path: string, body: object): Promise<Response> =>
    fetch(`${accounts}/v1/tenants/${tenant}/api-keys${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(30_000),
    });
  const answered = async (response: Response, id?: string): Promise<Answered> => {
    const body = (await response.json()) as { readonly key?: { readonly id: string } };
    return { status: response.status, requestId: response.headers.get('x-request-id'), id: id ?? body.key?.id ?? null };
  };
  return {
    create: async () => {
      const token = await access();
      if (token === undefined) return undefined;
      const owner = String(decodeJwt(token).sub);
      return answered(
        await post(token, '', { owner, name: `drill ${randomUUID()}`, scopes: ['session:read'], days: 1 }),
      );
    },
    revoke: async (id) =>
      answered(await post(person?.access ?? '', `/${id}/revoke`, { reason: 'end of the drill' }), id),
  };
}
