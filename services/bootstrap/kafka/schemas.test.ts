import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { planOf } from '@somagent/events';
import { importPKCS8, SignJWT } from 'jose';
import type { Failure } from '../failure.ts';
import { createSigningKey } from '../secrets/signing-keys.ts';
import { startSchemaRegistry, type TestSchemaRegistry } from '../testing/schema-registry.ts';
import { type KafkaPlan, kafkaPlan } from './plan.ts';
import { reconcileSchemas, SchemaRegistry } from './registry.ts';
import { type Counts, Report } from './report.ts';
import { registryToken, runSchemas } from './schemas.ts';

type Subjects = KafkaPlan['schemas'];
type Schema = Subjects[number]['versions'][number];

const subject = 'audit.session-session.opened';
const object = (properties: object, required: readonly string[]): Schema => ({
  $schema: 'http://json-schema.org/draft-07/schema#',
  ...{ type: 'object', properties, required, additionalProperties: false },
});
const text = { type: 'string' };
const first = object({ id: text }, ['id']);
const second = object({ id: text, note: text }, ['id']);
const history = (...versions: Schema[]): Subjects => [{ subject, compatibility: 'BACKWARD', versions }];
const counts = (changes: Partial<Counts>): Counts => ({
  created: 0,
  repaired: 0,
  removed: 0,
  unchanged: 0,
  ...changes,
});

let server: TestSchemaRegistry;
let registry: SchemaRegistry;
before(async () => {
  server = await startSchemaRegistry();
  registry = new SchemaRegistry(server.url, () => registryToken(server.key['private.pem']));
});
after(() => server?.stop());

async function apply(subjects: Subjects): Promise<Counts> {
  const report = new Report();
  await reconcileSchemas(registry, subjects, report);
  return report.counts;
}

/** What the Job gets. */
function environment(plan: string): Record<string, string> {
  const files = { REGISTRY_CA_FILE: server.caFile, REGISTRY_KEY_FILE: server.keyFile };
  return { PLAN: plan, REGISTRY_URL: server.url, ...files, WAIT_SECONDS: '60' };
}

async function written(name: string, content: string): Promise<string> {
  const file = join(server.folder, name);
  await writeFile(file, content);
  return file;
}

describe('schemas', () => {
  test('are registered in order, once, and kept over a restart', async () => {
    assert.deepEqual(await apply(history(first)), counts({ created: 1 }));
    assert.deepEqual(await apply(history(first)), counts({ unchanged: 1 }));
    assert.deepEqual(await apply(history(first, second)), counts({ created: 1 }));
    await server.restart();
    assert.deepEqual(await registry.versions(subject), [first, second]);
    assert.deepEqual(await apply(history(first, second)), counts({ unchanged: 1 }));
  });

  test('that are not compatible are refused; the message has subject, field and fix', async () => {
    const third = object({ id: text, note: text, actor: text }, ['id', 'actor']);
    await assert.rejects(apply(history(first, second, third)), (error: Failure) => {
      const expected = `subject ${subject}: version 3 is not backward compatible: $.actor: is required, it was not`;
      assert.equal(error.message, expected);
      assert.match(error.fix, /make a new field optional, keep every field/);
      return true;
    });
    assert.equal((await registry.versions(subject)).length, 2);
  });

  test('of the past are not rewritten', async () => {
    const edited = object({ id: { type: 'number' } }, ['id']);
    await assert.rejects(apply(history(edited, second)), (error: Failure) => {
      assert.equal(error.message, `subject ${subject}: version 1 of the plan is not the one that is registered`);
      assert.match(error.fix, /raise the version .* gets version 3/);
      return true;
    });
  });

  test('stay under the rule that is declared', async () => {
    await registry.setCompatibility(subject, 'NONE');
    assert.deepEqual(await apply(history(first, second)), counts({ repaired: 1 }));
    assert.equal(await registry.compatibility(subject), 'BACKWARD');
  });

  test('of the whole platform are registered by the command, from files', async () => {
    const { schemas } = kafkaPlan.parse(JSON.parse(JSON.stringify(planOf())));
    const others = schemas.filter((each) => each.subject !== subject);
    const plan = await written('plan.json', JSON.stringify({ schemas: others }));
    await runSchemas(environment(plan));
    for (const each of others) assert.deepEqual(await registry.versions(each.subject), each.versions, each.subject);
    assert.deepEqual(await apply(others), counts({ unchanged: others.length }));
  });
});

describe('the way in', () => {
  const subjects = '/apis/ccompat/v7/subjects';

  async function ask(token: string | undefined, method = 'GET', path = subjects): Promise<number> {
    const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const headers = { ...authorization, 'content-type': 'application/json' };
    const body = JSON.stringify({ schemaType: 'JSON', schema: JSON.stringify(first) });
    const response = await fetch(`${server.url}${path}`, { method, headers, ...(method === 'POST' && { body }) });
    return response.status;
  }

  test('a token of the key is admitted, as far as its role goes', async () => {
    const key = server.key['private.pem'];
    const versions = `${subjects}/other/versions`;
    assert.equal(await ask(await registryToken(key)), 200);
    assert.equal(await ask(await registryToken(key, 'sr-readonly')), 200);
    assert.equal(await ask(await registryToken(key, 'sr-readonly'), 'POST', versions), 403);
    assert.equal(await ask(await registryToken(key, 'none')), 403);
    assert.equal(await ask(undefined, 'POST', versions), 401);
  });

  const reading = '/apis/ccompat/v6/subjects';

  /** A token of the readers' key, as a service signs it, or otherwise. */
  async function readerToken(changes: Readonly<Record<string, unknown>> = {}, key = server.readerKey): Promise<string> {
    return new SignJWT({ role: 'sr-readonly', iss: 'somagent-schema-reader', aud: 'schema-registry', ...changes })
      .setProtectedHeader({ alg: 'RS256', typ: 'JWT' })
      .setSubject('a-service')
      .setIssuedAt()
      .setExpirationTime('1m')
      .sign(await importPKCS8(key['private.pem'], 'RS256'));
  }

  test('without a token nothing can be read or changed', async () => {
    for (const api of ['/apis/ccompat/v7', '/apis/ccompat/v6']) {
      for (const [method, path] of [
        ['GET', '/subjects'],
        ['GET', `/subjects/${subject}/versions`],
        ['GET', `/subjects/${subject}/versions/1`],
        ['POST', '/subjects/other/versions'],
        ['DELETE', `/subjects/${subject}`],
        ['PUT', '/config'],
      ] as const) {
        assert.equal(await ask(undefined, method, `${api}${path}`), 401, `${method} ${api}${path}`);
      }
    }
    for (const path of ['search/artifacts', 'admin/rules', 'ids/globalIds/1']) {
      assert.equal(await ask(undefined, 'GET', `/apis/registry/v2/${path}`), 401, path);
    }
  });

  test('a reader’s token reads and changes nothing', async () => {
    const token = await readerToken();
    const answer = await fetch(`${server.url}${reading}/${subject}/versions/1`, {
      headers: { authorization: `Bearer ${token}` },
    });
    assert.deepEqual(JSON.parse(((await answer.json()) as { schema: string }).schema), first);
    assert.equal(await ask(token, 'POST', `${reading}/other/versions`), 403);
    assert.equal(await ask(token, 'DELETE', `${reading}/${subject}`), 403);
    assert.equal(await ask(token, 'PUT', '/apis/ccompat/v6/config'), 403);
    assert.equal(await ask(token, 'PUT', `/apis/ccompat/v6/../v6/config`), 403);
  });

  test('a reader’s key goes no further, whatever it signs and wherever it is shown', async () => {
    const admin = { groups: ['sr-admin'] };
    for (const changes of [
      { role: 'sr-admin' },
      { role: ['sr-readonly', 'sr-admin'] },
      { ...admin, role: undefined },
    ]) {
      assert.equal(await ask(await readerToken(changes), 'GET', reading), 401, JSON.stringify(changes));
    }
    assert.equal(await ask(await readerToken(admin), 'POST', `${reading}/other/versions`), 403);
    const posing = { ...admin, iss: 'somagent-bootstrap' };
    for (const path of [subjects, '/apis/registry/v2/search/artifacts']) {
      for (const changes of [{}, posing]) assert.equal(await ask(await readerToken(changes), 'GET', path), 401, path);
    }
    // Tenants are also chosen by the last part of a path.
    assert.equal(await ask(await readerToken(posing), 'DELETE', `${subjects}/reader`), 401);
    assert.equal(await ask(await readerToken(admin), 'DELETE', `${subjects}/reader`), 403);
  });

  test('a reader’s token of another key, issuer or audience is refused, and so is the Job’s at the readers’ door', async () => {
    const refused = {
      'another key': await readerToken({}, createSigningKey('RS256')),
      'the key of the Job': await readerToken({}, server.key),
      'another issuer': await readerToken({ iss: 'somagent-bootstrap' }),
      'another audience': await readerToken({ aud: 'somagent-gateway' }),
      'the token of the Job': await registryToken(server.key['private.pem']),
    };
    for (const [name, token] of Object.entries(refused)) assert.equal(await ask(token, 'GET', reading), 401, name);
  });

  test('no token, and one of another key, audience or issuer, expired or unsigned, is refused', async () => {
    const own = await importPKCS8(server.key['private.pem'], 'RS256');
    const sign = (issuer: string, audience: string, expires: string) =>
      new SignJWT({ groups: ['sr-admin'] })
        .setProtectedHeader({ alg: 'RS256' })
        .setIssuer(issuer)
        .setAudience(audience)
        .setIssuedAt()
        .setExpirationTime(expires)
        .sign(own);
    assert.equal(await ask(await sign('somagent-bootstrap', 'schema-registry', '1m')), 200);
    const [, payload = ''] = (await registryToken(server.key['private.pem'])).split('.');
    const refused = {
      'no token': undefined,
      'another key': await registryToken(createSigningKey('RS256')['private.pem']),
      'another audience': await sign('somagent-bootstrap', 'somagent-gateway', '1m'),
      'another issuer': await sign('somebody', 'schema-registry', '1m'),
      expired: await sign('somagent-bootstrap', 'schema-registry', '-1m'),
      unsigned: `${Buffer.from('{"alg":"none"}').toString('base64url')}.${payload}.`,
    };
    for (const [name, token] of Object.entries(refused)) {
      assert.equal(await ask(token), 401, name);
      assert.equal(await ask(token, 'GET', '/apis/registry/v2/search/artifacts'), 401, name);
    }
  });

  test('plain HTTP is not answered, pages and imitated products are not there', async () => {
    const plain = `${server.url.replace('https', 'http')}/health/ready`;
    const answer = await new Promise<unknown>((done) => {
      request(plain, (response) => done(response.statusCode))
        .on('error', () => done('no answer'))
        .end();
    });
    assert.equal(answer, 'no answer');
    const token = await registryToken(server.key['private.pem']);
    for (const path of ['/ui/', '/apis/ibmcompat/v1/schemas', '/apis/cncf/v0/schemagroups']) {
      assert.equal(await ask(token, 'GET', path), 404, path);
    }
  });

  test('a registry that says no ends the command at once, with the fix', async () => {
    const strange = await written('strange.pem', createSigningKey('RS256')['private.pem']);
    const plan = await written('one.json', JSON.stringify({ schemas: history(first) }));
    await assert.rejects(runSchemas({ ...environment(plan), REGISTRY_KEY_FILE: strange }), (error: Failure) => {
      assert.match(error.message, /^Schema registry at https:.* refused: .*HTTP 401/);
      assert.match(error.fix, /Secrets schema-registry-key/);
      return true;
    });
  });

  test('no secret is in the log', async () => {
    const log = await server.log();
    assert.match(log, /started in/);
    assert.equal(log.includes('a-database-password-of-this-test'), false);
    assert.equal(/eyJ[\w-]+\.eyJ/.test(log), false, 'a token is in the log');
  });
});
