import type { ChartDeployment } from '../bridge/index.ts';
import { Plane, type PlaneArgs, type PlaneOptions } from './plane.ts';

/** Arguments of {@link DataPlane}. */
export interface DataPlaneArgs extends PlaneArgs {
  /** The region's secrets. */
  readonly secrets: ChartDeployment;
}

/** Where state lives. */
export class DataPlane extends Plane {
  /** Works when every database and its role exist. */
  readonly databases: ChartDeployment;
  /** Works when every topic, user and right exists. */
  readonly topics: ChartDeployment;
  /** Works when every schema is registered: one that breaks its readers ends the deployment here. */
  readonly schemas: ChartDeployment;
  /** Works when every bucket and user exists. */
  readonly buckets: ChartDeployment;
  /** Works when vectors can be stored. */
  readonly vectors: ChartDeployment;
  /** Works when figures can be stored. */
  readonly figures: ChartDeployment;

  constructor(name: string, args: DataPlaneArgs, opts: PlaneOptions) {
    super('somagent:region:DataPlane', name, args, opts);
    this.databases = this.deploy('postgres', [args.secrets]);
    this.topics = this.deploy('kafka', [args.secrets]);
    this.schemas = this.deploy('schema-registry', [args.secrets]);
    this.buckets = this.deploy('object-store', [args.secrets]);
    this.vectors = this.deploy('qdrant', [args.secrets]);
    this.figures = this.deploy('clickhouse', [args.secrets]);
    this.registerOutputs({});
  }
}
