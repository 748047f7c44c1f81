import { Construct } from 'constructs';
import type { ClickHouse } from '../clickhouse/index.ts';
import { instanceName } from '../core/labels.ts';
import type { Endpoint, PodNetwork } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { type Reachability, servingCertificate } from '../core/serving-certificate.ts';
import { integerBetween, nodePort } from '../core/validate.ts';
import { type Connectable, DeploymentWorkload, JobWorkload, ServiceAddress } from '../core/workload.ts';
import type { Keycloak } from '../keycloak/keycloak.ts';
import { Policy } from '../policy/policy.ts';

const HTTPS = 8443;
const HEALTH = 8081;

/** Options of {@link Analytics}. */
export interface AnalyticsProps extends Reachability {
  /** Image `somagent/analytics`. */
  readonly image: string;
  /** Where its certificate is asked for. */
  readonly plan: SecretPlan;
  /** Where events end; the service owns its tables. */
  readonly clickhouse: ClickHouse;
  /** The database `analytics` of Postgres: limits of requests, the lock of migrations, verdicts that Kafka does not take. */
  readonly database: Connectable;
  /** Where events come from: `kafka.user('analytics')`. */
  readonly kafka: Connectable;
  /** What newer versions of events look like: `schemaRegistry.reader()`. */
  readonly schemas: Connectable;
  /** Who issues the tokens that it admits. */
  readonly identity: Keycloak;
  /** Who says what is suspended and revoked, and whom API keys stand for: the identity service. */
  readonly control: Connectable;
  /** Where policies come from: `policy.consumer()`. */
  readonly policy: Connectable;
  /**
   * What tokens must name as audience.
   * @default 'somagent-gateway'
   */
  readonly audience?: string;
  /**
   * Minutes between two forecasts.
   * @default 60
   */
  readonly forecastMinutes?: number;
  /** Of the pod; a forecast runs in a process of its own that needs 200Mi for seconds. @default 30m and 200Mi promised, 640Mi at most */
  readonly resources?: Resources;
}

/** Events into ClickHouse, each once; reports by tenant, forecast and anomalies over HTTPS. */
export class Analytics extends Construct implements Endpoint {
  /** DNS name within the cluster. */
  readonly host: string;
  readonly port = HTTPS;
  /** Address within the cluster. */
  readonly url: string;
  readonly network: PodNetwork;
  readonly #instance: string;

  constructor(scope: Construct, id: string, props: AnalyticsProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    const { exposure } = props;
    const address = new ServiceAddress(this, 'address', {
      ...this.#identity('server'),
      name: this.#instance,
      ports: { https: HTTPS },
      selector: { 'app.kubernetes.io/instance': this.#instance, 'app.kubernetes.io/component': 'server' },
      ...(exposure && { nodePorts: { https: nodePort('exposure.nodePort', exposure.nodePort) } }),
    });
    this.host = address.host;
    this.url = `https://${this.host}:${HTTPS}`;
    const migration = this.#migration(props);
    const server = this.#server(props);
    server.node.addDependency(migration);
    this.network = server.network;
    this.network.allowTo(props.identity.network, [props.identity.port]);
    if (exposure) this.network.allowFromAnywhere(HTTPS);
  }

  #identity(component: string) {
    return { product: 'analytics', instance: this.#instance, component };
  }

  #migration({ image, database, clickhouse }: AnalyticsProps): JobWorkload {
    return new JobWorkload(this, 'migrate', {
      ...this.#identity('migrate'),
      image,
      command: ['node', '/app/main.js', 'migrate'],
      connections: [database, clickhouse.user('analytics')],
      resources: { cpu: '30m', memory: '96Mi', memoryLimit: '256Mi' },
    });
  }

  #server(props: AnalyticsProps): DeploymentWorkload {
    const { clickhouse, database, kafka, schemas, control, policy, plan } = props;
    const place = { instance: this.#instance, host: this.host, namespace: placeOf(this).namespace };
    return new DeploymentWorkload(this, 'server', {
      ...this.#identity('server'),
      name: this.#instance,
      image: props.image,
      command: ['node', '/app/main.js', 'serve'],
      connections: [
        clickhouse.user('analytics'),
        clickhouse.user('reader'),
        ...[database, kafka, schemas, control, policy],
      ],
      scratch: Policy.cache,
      env: environment(props),
      ports: { https: HTTPS, health: HEALTH },
      secrets: [{ path: '/secrets/analytics-tls', secret: servingCertificate(plan, place, props) }],
      replicas: 1,
      resources: props.resources ?? { cpu: '30m', memory: '200Mi', memoryLimit: '640Mi' },
      terminationGraceSeconds: 45,
      probes: {
        readiness: { scheme: 'http', port: HEALTH, path: '/readyz', periodSeconds: 3 },
        liveness: { scheme: 'http', port: HEALTH, path: '/healthz', periodSeconds: 10 },
      },
    });
  }
}

function environment({ identity, audience = 'somagent-gateway', forecastMinutes = 60 }: AnalyticsProps) {
  return {
    PORT: String(HTTPS),
    HEALTH_PORT: String(HEALTH),
    TLS_DIR: '/secrets/analytics-tls',
    OIDC_ISSUER: identity.issuer,
    OIDC_JWKS_URL: identity.jwksUrl,
    OIDC_CA_FILE: '/secrets/ca/ca.crt',
    OIDC_AUDIENCE: audience,
    FORECAST_MINUTES: String(integerBetween('forecastMinutes', forecastMinutes, 5, 1440)),
  };
}
