import { Construct } from 'constructs';
import { instanceName } from '../core/labels.ts';
import type { Endpoint, PodNetwork } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { type Reachability, servingCertificate } from '../core/serving-certificate.ts';
import { nodePort } from '../core/validate.ts';
import { type Connectable, DeploymentWorkload, ServiceAddress } from '../core/workload.ts';
import type { Keycloak } from '../keycloak/keycloak.ts';
import { Policy } from '../policy/policy.ts';
import type { Temporal } from '../temporal/temporal.ts';

const HTTPS = 8443;
const HEALTH = 8081;

/** Options of {@link Gateway}. */
export interface GatewayProps extends Reachability {
  /** Image `somagent/gateway`. */
  readonly image: string;
  /** Where the certificate is asked for. */
  readonly plan: SecretPlan;
  /** Where sessions run. */
  readonly temporal: Temporal;
  /** Where sessions are kept, requests are counted and verdicts wait for Kafka: a reader of the database `sessions`. */
  readonly database: Connectable;
  /** Who issues the tokens that it admits. */
  readonly identity: Keycloak;
  /** Who says what is suspended, revoked and halted, and whom API keys stand for: the identity service. */
  readonly control: Connectable;
  /** Where policies come from: `policy.consumer()`. */
  readonly policy: Connectable;
  /** Who is asked for relations: `openfga.client()`. */
  readonly relations: Connectable;
  /** Where verdicts go: `kafka.user('gateway')`. */
  readonly kafka: Connectable;
  /**
   * Requests that may be sent, in a minute by one subject and by a whole tenant, and in a day by a whole tenant.
   * @default 1200, 12000 and 1000000
   */
  readonly limits?: { readonly subjectMinute: number; readonly tenantMinute: number; readonly tenantDay: number };
  /**
   * What tokens must name as audience.
   * @default 'somagent-gateway'
   */
  readonly audience?: string;
  /**
   * Task queue of the sessions.
   * @default 'sessions'
   */
  readonly taskQueue?: string;
  /** Number of pods. @default 2 */
  readonly replicas?: number;
  /** Of each pod. @default 50m and 128Mi promised, 384Mi at most */
  readonly resources?: Resources;
}

/** The HTTP API of sessions, governed: each request is somebody's, allowed by a policy, and recorded. */
export class Gateway extends Construct implements Endpoint {
  /** DNS name within the cluster. */
  readonly host: string;
  readonly port = HTTPS;
  /** Address within the cluster. */
  readonly url: string;
  readonly network: PodNetwork;

  constructor(scope: Construct, id: string, props: GatewayProps) {
    super(scope, id);
    const identity = { product: 'gateway', instance: instanceName(this), component: 'server' };
    const address = new ServiceAddress(this, 'address', {
      ...identity,
      name: identity.instance,
      ports: { https: HTTPS },
      selector: { 'app.kubernetes.io/instance': identity.instance, 'app.kubernetes.io/component': 'server' },
      ...(props.exposure && { nodePorts: { https: nodePort('exposure.nodePort', props.exposure.nodePort) } }),
    });
    this.host = address.host;
    this.url = `https://${this.host}:${HTTPS}`;
    const server = new DeploymentWorkload(this, 'server', {
      ...identity,
      name: identity.instance,
      image: props.image,
      command: ['node', '/app/main.js'],
      connections: [props.temporal, props.database, props.control, props.policy, props.relations, props.kafka],
      scratch: Policy.cache,
      env: environment(props),
      ports: { https: HTTPS, health: HEALTH },
      secrets: [
        {
          path: '/secrets/gateway-tls',
          secret: servingCertificate(
            props.plan,
            { instance: identity.instance, host: this.host, namespace: placeOf(this).namespace },
            props,
          ),
        },
      ],
      replicas: props.replicas ?? 2,
      resources: props.resources ?? { cpu: '50m', memory: '128Mi', memoryLimit: '384Mi' },
      // Open streams end before the pod does.
      terminationGraceSeconds: 45,
      probes: {
        readiness: { scheme: 'http', port: HEALTH, path: '/readyz', periodSeconds: 3 },
        liveness: { scheme: 'http', port: HEALTH, path: '/healthz', periodSeconds: 10 },
      },
    });
    this.network = server.network;
    this.network.allowTo(props.identity.network, [props.identity.port]);
    if (props.exposure) this.network.allowFromAnywhere(HTTPS);
  }
}

function environment({ identity, limits, audience = 'somagent-gateway', taskQueue = 'sessions' }: GatewayProps) {
  return {
    PORT: String(HTTPS),
    HEALTH_PORT: String(HEALTH),
    TLS_DIR: '/secrets/gateway-tls',
    TASK_QUEUE: taskQueue,
    OIDC_ISSUER: identity.issuer,
    OIDC_JWKS_URL: identity.jwksUrl,
    OIDC_CA_FILE: '/secrets/ca/ca.crt',
    OIDC_AUDIENCE: audience,
    ...(limits && {
      RATE_LIMIT_PER_MINUTE: String(limits.subjectMinute),
      TENANT_RATE_LIMIT_PER_MINUTE: String(limits.tenantMinute),
      TENANT_QUOTA_PER_DAY: String(limits.tenantDay),
    }),
  };
}
