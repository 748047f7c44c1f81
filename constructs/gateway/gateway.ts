import { Construct } from 'constructs';
import { instanceName } from '../core/labels.ts';
import { MODELS_FILE, type ModelPrices, type ModelServer, modelsFile } from '../core/models-file.ts';
import type { Endpoint, PodNetwork } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { type Reachability, servingCertificate } from '../core/serving-certificate.ts';
import { nodePort } from '../core/validate.ts';
import { type Connectable, DeploymentWorkload, ServiceAddress } from '../core/workload.ts';
import type { Keycloak } from '../keycloak/keycloak.ts';
import { Policy } from '../policy/policy.ts';
import type { Slm } from '../slm/slm.ts';
import type { Temporal } from '../temporal/temporal.ts';

const HTTPS = 8443;
const HEALTH = 8081;

/** A server of embeddings: OpenAI's `/v1/embeddings`, asked with a workload token of the target `embeddings`. */
export interface EmbeddingsServer extends Connectable {
  /** Base address of the API, ending in /v1. */
  readonly url: string;
  /** Name of its model. */
  readonly model: string;
}

/** Options of {@link Gateway}. */
export interface GatewayProps extends Reachability {
  /** Image `somagent/gateway`. */
  readonly image: string;
  /** Where the certificate is asked for. */
  readonly plan: SecretPlan;
  /** Where sessions run. */
  readonly temporal: Temporal;
  /**
   * Where sessions are kept, requests are counted, budgets hold and events wait for Kafka: a reader of the database
   * `sessions`.
   */
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
  /** Whose models it offers at `/v1/chat/completions`. @default none */
  readonly slm?: Slm;
  /** Whose model it offers at `/v1/embeddings`. @default none */
  readonly embeddings?: EmbeddingsServer;
  /** Prices by the name of the model, whole millionths of a US dollar per million tokens. @default 50000 and 200000 */
  readonly modelPrices?: Readonly<Record<string, ModelPrices>>;
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
      connections: [
        ...[props.temporal, props.database, props.control, props.policy, props.relations, props.kafka],
        ...(props.slm ? [props.slm] : []),
        ...(props.embeddings ? [props.embeddings] : []),
      ],
      files: [modelsFile(this, { ...identity }, modelServers(props), props.modelPrices)],
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

function modelServers({ slm, embeddings }: GatewayProps): readonly ModelServer[] {
  const chat = slm && [
    { name: 'slm', kind: 'slm', url: slm.url, target: 'slm', modelKind: 'chat', models: slm.models } as const,
  ];
  const vectors = embeddings && [
    {
      ...({ name: 'embeddings', kind: 'openai', target: 'embeddings', modelKind: 'embedding' } as const),
      ...{ url: embeddings.url, models: [embeddings.model] },
    },
  ];
  return [...(chat ?? []), ...(vectors ?? [])];
}

function environment({ identity, limits, audience = 'somagent-gateway', taskQueue = 'sessions' }: GatewayProps) {
  return {
    PORT: String(HTTPS),
    HEALTH_PORT: String(HEALTH),
    TLS_DIR: '/secrets/gateway-tls',
    MODELS_FILE,
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
