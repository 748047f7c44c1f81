import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClickHouse } from '../clickhouse/index.ts';
import { Postgres } from '../postgres/index.ts';
import {
  environmentOf,
  governanceOf,
  image,
  kafkaOf,
  keycloakOf,
  mountsOf,
  postgresOf,
  schemaRegistryOf,
  TestRegion,
} from '../testing.ts';
import { Analytics, type AnalyticsProps } from './index.ts';

function analyticsOf(region: TestRegion, more: Partial<AnalyticsProps> = {}): void {
  const postgres = postgresOf(region);
  const keycloak = keycloakOf(region, postgres);
  const users = ['analytics', 'gateway', 'identity'].map((name) => ({ name }));
  const kafka = kafkaOf(region, 'kafka', { declared: { topics: [], users, acls: [] } });
  const { control, policy } = governanceOf(region, postgres, keycloak, kafka);
  const { plan } = region;
  const own = new Postgres(region.chart('data'), 'records', {
    image: image('postgres'),
    bootstrapImage: image('bootstrap'),
    plan,
    databases: [{ name: 'analytics', owner: 'analytics' }],
  });
  new Analytics(region.chart('services'), 'analytics', {
    image: image('analytics'),
    plan,
    clickhouse: new ClickHouse(region.chart('data'), 'clickhouse', { image: image('clickhouse'), plan }),
    database: own.database('analytics'),
    kafka: kafka.user('analytics'),
    schemas: schemaRegistryOf(region).reader(),
    identity: keycloak,
    control,
    policy,
    ...more,
  });
}

test('the service reads events, schemas and policies, owns its tables, and answers as who may only read', () => {
  const region = new TestRegion();
  analyticsOf(region);
  const server = region.find('Deployment', 'analytics');
  const environment = environmentOf(server);
  assert.equal(environment.CLICKHOUSE_URL, 'https://clickhouse.north-data.svc:8443');
  assert.equal(environment.CLICKHOUSE_CREDENTIALS_DIR, '/secrets/clickhouse-analytics');
  assert.equal(environment.CLICKHOUSE_READER_CREDENTIALS_DIR, '/secrets/clickhouse-reader');
  assert.equal(environment.SCHEMA_REGISTRY_URL, 'https://schema-registry.north-data.svc:8443');
  assert.equal(environment.SCHEMA_REGISTRY_KEY_FILE, '/secrets/schema-reader-key/private.pem');
  assert.equal(mountsOf(server)['/secrets/schema-reader-key'], 'schema-registry-reader-key');
  assert.equal(environment.PGDATABASE, 'analytics');
  assert.equal(environment.FORECAST_MINUTES, '60');
  assert.equal(mountsOf(server)['/secrets/analytics-tls'], 'analytics-tls');
  assert.deepEqual(server.spec.template.spec.containers[0].resources.requests, { cpu: '30m', memory: '200Mi' });
});

test('tables are made before the service starts, by a Job that has no user who only reads', () => {
  const region = new TestRegion();
  analyticsOf(region);
  const job = region.find('Job', 'analytics-migrate');
  assert.equal(environmentOf(job).CLICKHOUSE_READER_CREDENTIALS_DIR, undefined);
  const order = region.manifests().map(({ metadata, kind }) => `${kind} ${metadata.name}`);
  assert.ok(order.indexOf(`Job ${job.metadata.name}`) < order.indexOf('Deployment analytics'));
});

test('a pace of forecasts that makes no sense is refused by name', () => {
  assert.throws(() => analyticsOf(new TestRegion(), { forecastMinutes: 0 }), /forecastMinutes/);
});
